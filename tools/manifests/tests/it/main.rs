//! The manifests against the rules of the house.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod files;
mod kubectl;
mod mutations;
mod overlays;
mod stage;
