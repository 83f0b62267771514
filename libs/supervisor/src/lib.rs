#![doc = include_str!("../README.md")]

mod child;
mod policy;
mod restarts;
mod supervisor;

pub use policy::{InvalidPolicy, RestartPolicy};
pub use restarts::{Decision, Restarts};
pub use supervisor::Supervisor;

/// What a child may fail with. The supervisor logs it; whether it is an outage decides an [`IsOutage`].
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Whether a failure is an outage of something outside of the process, which a restart does not end.
pub type IsOutage = fn(&(dyn std::error::Error + 'static)) -> bool;
