//! The whole platform, as a person starts it: real services, real NATS, real Postgres.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod bad_input;
mod cost;
mod crowd;
mod dead_letters;
mod drain;
mod elsewhere;
mod faults;
mod outages;
mod provider;
mod purchase;
mod restore;
mod rights;
mod stage;
mod traces;
mod wal;
