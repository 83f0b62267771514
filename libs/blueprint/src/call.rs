//! A destination that a service calls.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stampede_resilience::DestinationPolicy;

/// A destination, which functions of it are called, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Over what.
    pub via: Via,
    /// The service that answers, where it has another name than the destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The functions, and what takes the place of an answer that does not come.
    pub functions: BTreeMap<String, Fallback>,
    /// Deadline, retries, hedges, budget, breaker, bulkhead.
    pub policy: DestinationPolicy,
}

/// Over what a destination is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// Request-reply over NATS.
    Rpc,
    /// HTTP.
    Http,
    /// Publishing to JetStream, with an acknowledgement.
    Jetstream,
    /// Mail.
    Smtp,
}

impl Via {
    /// The word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rpc => "rpc",
            Self::Http => "http",
            Self::Jetstream => "jetstream",
            Self::Smtp => "smtp",
        }
    }
}

/// What takes the place of an answer that does not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// A problem that says so, with `Retry-After`; asking again with the same key is safe.
    Problem,
    /// The last answer, with its age.
    LastCopy,
    /// A row in the database remembers it, and it is tried again until it is done.
    Later,
}

impl Fallback {
    /// The word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::LastCopy => "last_copy",
            Self::Later => "later",
        }
    }
}
