//! The outbox with a real Postgres and a real NATS.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

mod order;
mod stage;
mod takeover;
mod wake_up;
mod write;
