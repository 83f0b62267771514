//! Why a use case failed.

use stampede_saga::Inconsistent;

use crate::domain::{InvalidInput, StepKind};

/// Why a use case failed. What it means over HTTP and NATS is said in one place, `http::problem`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such order for this caller.
    #[error("there is no such order")]
    OrderNotFound,
    /// No such ticket for this caller.
    #[error("there is no such ticket")]
    TicketNotFound,
    /// A field breaks its rule.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// The key came with another request before.
    #[error("the key was used for another request")]
    KeyReused,
    /// The first request with the key still runs.
    #[error("the first request with this key still runs")]
    KeyInProgress,
    /// After `cancel_until`.
    #[error("it is too late to cancel")]
    CancelTooLate,
    /// The database failed or is away.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// The steps of an order contradict the plan: a fault in a program.
    #[error("an order's steps contradict its plan")]
    Saga(#[from] Inconsistent<StepKind>),
    /// Something has no form in JSON: a fault in a program.
    #[error("something has no form in JSON")]
    Encoding(#[from] serde_json::Error),
}
