//! A destination that a service calls.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stampede_resilience::DestinationPolicy;

use crate::InvalidPatch;
use crate::patch::patched;

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

impl Call {
    /// Whether its calls may be made more than once. Publishing, mail and third parties are not: what must not be lost there
    /// is a row that is retried automatically.
    pub fn is_repeated(&self) -> bool {
        match self.via {
            Via::Rpc => true,
            Via::Http => self.service.is_none(),
            Via::Jetstream | Via::Smtp => false,
        }
    }

    /// Its policy with the fields that `patch` names replaced: a JSON Merge Patch (RFC 7396), for example
    /// `{"breaker": {"open_ms": 500}}`.
    ///
    /// # Errors
    /// [`InvalidPatch`] when the result is no policy, for example because a `null` took a field away that is needed, or when
    /// the patch changes the retries of calls that are made once.
    pub fn patched(&self, patch: &Value) -> Result<DestinationPolicy, InvalidPatch> {
        let policy = patched(&self.policy, patch)?;
        let repeats = |policy: &DestinationPolicy| (policy.retry, policy.hedge, policy.budget);
        if !self.is_repeated() && repeats(&policy) != repeats(&self.policy) {
            return Err(InvalidPatch::Once);
        }
        Ok(policy)
    }
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
