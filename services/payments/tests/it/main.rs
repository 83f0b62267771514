//! The service with a real Postgres, a real NATS under the rights of a real run, and the real simulator of the
//! provider.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod books;
mod commands;
mod crashes;
mod money;
mod orders;
mod support;
mod unknown;
mod webhooks;
