//! Every way in which this service says no.

use stampede_contracts::{Code, Problem};

use crate::domain::hold::Refusal;
use crate::store::StoreError;

/// A call got no success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is refused by a rule.
    #[error("refused")]
    Refused(#[from] Problem),
    /// The database did not do its part.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl Error {
    /// Whether the same call may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Problem::new(match refusal {
            Refusal::Gone => Code::HoldGone,
            Refusal::Attached => Code::HoldAttached,
            Refusal::Sold => Code::Conflict,
        }))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(problem) => problem,
            Error::Store(error) => {
                let code = error.code();
                tracing::error!(%code, error = &error as &dyn std::error::Error, "the store failed");
                Self::new(code).trace_id(stampede_telemetry::trace::trace_id())
            }
        }
    }
}
