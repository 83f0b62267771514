#![doc = include_str!("../README.md")]

mod child;
mod policy;
mod restarts;
mod supervisor;

pub use policy::{InvalidPolicy, RestartPolicy};
pub use restarts::{Decision, Restarts};
pub use supervisor::Supervisor;

/// What a child may fail with. The supervisor logs it and does not look inside.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
