//! The simulator against a real Postgres, over real connections.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod doors;
mod in_flight;
mod ledger;
mod mischief;
mod support;
mod webhooks;
