//! The bus against a real server, one for each test.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod bucket;
mod calls;
mod consumer;
mod dead_letters;
mod letters;
mod members;
mod publish;
mod replay;
mod rights;
mod support;
mod topology;
mod traces;
mod trust;
mod urgency;
