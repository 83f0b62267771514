//! Orders with a real database and a real NATS; inventory, payments and notify are played by the tests.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test, as the tests themselves do"
)]

mod access;
mod cancel;
mod client;
mod overtaken;
mod players;
mod process;
mod purchase;
mod recovery;
mod refusals;
mod stage;
mod sweep;
