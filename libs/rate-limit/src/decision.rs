//! What a limiter answers.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::quota::{ascii, whole_seconds};

/// `RateLimit`: how much is left of which policy.
pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// `RateLimit-Policy`: the quota, the same in every answer.
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Whether a request may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may, and was counted.
    Allowed {
        /// The burst of the quota.
        limit: u32,
        /// How many more may follow at once.
        remaining: u32,
        /// After at most this time there is room for one more than that.
        reset: Duration,
    },
    /// It may not, and was not counted.
    Refused {
        /// The burst of the quota.
        limit: u32,
        /// The exact time after which the same request is allowed, if no other of this key comes in between.
        retry_after: Duration,
    },
}

impl Decision {
    /// Whether it is [`Decision::Allowed`].
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }

    /// The value of [`RATELIMIT`] for the quota of this name: what remains, and in how many whole seconds there is more.
    pub fn header(&self, name: &str) -> HeaderValue {
        let (remaining, more_in) = match *self {
            Self::Allowed { remaining, reset, .. } => (remaining, reset),
            Self::Refused { retry_after, .. } => (0, retry_after),
        };
        ascii(&format!("\"{name}\";r={remaining};t={}", whole_seconds(more_in)))
    }

    /// The value of `Retry-After` for a refusal, in whole seconds, rounded up.
    pub fn retry_after_header(&self) -> Option<HeaderValue> {
        match *self {
            Self::Allowed { .. } => None,
            Self::Refused { retry_after, .. } => Some(HeaderValue::from(whole_seconds(retry_after))),
        }
    }
}
