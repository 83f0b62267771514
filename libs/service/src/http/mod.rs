//! HTTP as every service speaks it.

mod address;
mod problems;
pub(crate) mod server;
mod stack;

pub use address::AddressKey;
pub use server::Server;
pub use stack::{HttpLimits, stack};
