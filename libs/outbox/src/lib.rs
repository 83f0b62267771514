#![doc = include_str!("../README.md")]

mod batch;
mod lanes;
mod metrics;
mod outbox;
mod partition;
mod relay;
mod session;

pub use outbox::{Blocked, NewRow, Outbox, Stored};
pub use relay::{Relay, RelaySettings};

/// The table, to be copied into a migration of the service.
pub const SCHEMA: &str = include_str!("schema.sql");

/// The channel on which relays are told of rows they cannot have seen, and of partitions that became free.
pub const CHANNEL: &str = "outbox";

/// What a loop that somebody supervises ends with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
