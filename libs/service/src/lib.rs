#![doc = include_str!("../README.md")]

mod admin;
mod command;
mod database;
mod destinations;
pub mod env;
mod error;
pub mod extract;
pub mod http;
mod life;
mod listeners;
mod messaging;
mod node;
pub mod readiness;
mod secret;
mod settings;

pub use command::Command;
pub use env::Env;
pub use error::Error;
pub use http::{HttpLimits, stack};
pub use node::Node;
pub use readiness::{Gate, Readiness};
pub use secret::Secret;
pub use settings::{Environment, NatsSettings, Settings};
