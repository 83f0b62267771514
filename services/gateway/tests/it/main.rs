//! The gateway as clients meet it: a real process's parts over real NATS, with its neighbours played by the test.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod bad_input;
mod connections;
mod contract;
mod events;
mod holds;
mod http;
mod limits;
mod ops;
mod pages;
mod pass;
mod sessions;
mod shed;
mod support;
mod upstream;
