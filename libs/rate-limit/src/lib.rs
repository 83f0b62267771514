#![doc = include_str!("../README.md")]

mod decision;
mod limiter;
mod quota;
mod store;

pub use decision::{Decision, RATELIMIT, RATELIMIT_POLICY};
pub use limiter::{NoKeys, RateLimiter};
pub use quota::{InvalidQuota, Quota};
