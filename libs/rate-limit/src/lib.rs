#![doc = include_str!("../README.md")]

mod decision;
mod future;
mod layer;
mod limiter;
mod quota;
mod store;

pub use decision::{Decision, RATELIMIT, RATELIMIT_POLICY};
pub use future::ResponseFuture;
pub use layer::{Charge, RateLimit, RateLimitLayer};
pub use limiter::{NoKeys, RateLimiter};
pub use quota::{InvalidQuota, Quota};
