//! HTTP as every service speaks it.

mod problems;
pub(crate) mod server;
mod stack;

pub use stack::{HttpLimits, stack};
