//! The layer as others use it.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod contract;
mod inbound;
