#![doc = include_str!("../README.md")]

mod balancer;
mod fleet;
mod health;
mod settings;
mod state;

pub use balancer::{Balancer, Pick};
pub use settings::{InvalidSettings, Settings};
pub use state::{Change, Event, Outcome, Snapshot};
