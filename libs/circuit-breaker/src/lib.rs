#![doc = include_str!("../README.md")]

mod breaker;
mod error;
mod future;
mod layer;
mod machine;
mod policy;
mod service;
mod silence;
mod state;
mod sync;
mod tally;

pub use breaker::{CircuitBreaker, Permit};
pub use error::{Error, Refused};
pub use future::ResponseFuture;
pub use layer::{CircuitBreakerLayer, Classify};
pub use policy::{InvalidPolicy, Policy, Trip};
pub use service::CircuitBreakerService;
pub use state::{Change, Forced, Outcome, Snapshot, State, Why};
pub use tally::Counts;
