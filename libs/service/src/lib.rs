#![doc = include_str!("../README.md")]

mod admin;
mod command;
mod database;
mod descriptors;
mod destinations;
pub mod env;
mod error;
pub mod extract;
mod failure;
pub mod http;
mod identity;
mod life;
mod listeners;
mod messaging;
mod node;
mod policies;
pub mod readiness;
mod secret;
mod settings;

pub use command::Command;
pub use env::Env;
pub use error::Error;
pub use failure::failure;
pub use http::{AddressKey, HttpLimits, stack};
pub use identity::Identity;
pub use node::Node;
pub use readiness::{Gate, Readiness};
pub use secret::{EmptySecret, Rotating, Secret};
pub use settings::{DatabaseOverrides, Environment, Host, NatsSettings, Settings};
