//! What can go wrong in the database.

use stampede_contracts::Code;
use stampede_postgres::Failure;

use crate::domain::block::Inconsistent;

/// A question to the store has no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or did not answer.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// Block and hold contradict each other.
    #[error("block and hold contradict each other")]
    Inconsistent(#[from] Inconsistent),
    /// A message has no form in JSON.
    #[error("a message cannot be written")]
    Message(#[from] serde_json::Error),
    /// A stored value cannot be read.
    #[error("a stored {0} cannot be read")]
    Unreadable(&'static str),
    /// What was read before has changed meanwhile.
    #[error("what was read before has changed")]
    Outdated,
}

impl StoreError {
    /// Whether the same transaction may succeed when it is retried immediately. After a break of the connection the
    /// last commit may or may not have happened; every function here has a key or a state that shows it.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Outdated => true,
            Self::Database(error) => Failure::is_transient(error),
            _ => false,
        }
    }

    /// Whether all of the store is unavailable.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Database(error) if Failure::of(error).is_outage())
    }

    /// What it means to a caller.
    pub fn code(&self) -> Code {
        match self {
            Self::Outdated => Code::Unavailable,
            Self::Database(error) => Failure::of(error).code(),
            _ => Code::Internal,
        }
    }
}
