#![doc = include_str!("../README.md")]

mod backoff;
mod budget;
mod future;
mod layer;
mod policy;
mod repeat;
mod retry_after;
mod rules;
mod sync;

pub use backoff::{Backoff, InvalidBackoff};
pub use budget::{Budget, BudgetSettings, InvalidBudget};
pub use future::ResponseFuture;
pub use layer::{Retry, RetryLayer};
pub use policy::{NoAttempts, RetryPolicy, Verdict};
pub use repeat::retry;
pub use retry_after::{RetryAfter, retry_after};
pub use rules::{ATTEMPT, HttpRules, Rules};
