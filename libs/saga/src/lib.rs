#![doc = include_str!("../README.md")]

mod log;
mod plan;

pub use log::{Direction, Entry, Inconsistent, Next, State};
pub use plan::{InvalidPlan, Plan, StepPlan};

#[cfg(test)]
mod tests;
