//! The process itself with a real Postgres, a real NATS under the rights of a real run, and a mail server that does
//! what its script says.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod given_up;
mod mails;
mod orders;
mod smtp;
mod world;
