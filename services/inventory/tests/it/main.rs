//! The whole service against a real Postgres and a real NATS, both of its own for each test, with the rights that the
//! service's user has in production.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod change;
mod crowd;
mod expiry;
mod history;
mod hold;
mod invariants;
mod pass;
mod publish;
mod server;
mod show;
mod throughput;
mod world;
