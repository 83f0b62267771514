//! What can go wrong in the database.

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
    /// Whether the same transaction may succeed when it is tried again: somebody was in the way, or the connection
    /// broke. After a break nobody knows whether the last commit happened, and every function here has a key or a
    /// state that tells.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Outdated => true,
            Self::Database(sqlx::Error::Io(_)) => true,
            Self::Database(sqlx::Error::Database(error)) => {
                let code = error.code().unwrap_or_default();
                // Serialization failure, deadlock, lock timeout; connection errors; the server stops or starts. A
                // unique row that is there now was written by another request of the same session a moment ago.
                matches!(&*code, "40001" | "40P01" | "55P03" | "23505")
                    || code.starts_with("08")
                    || code.starts_with("57P")
            }
            _ => false,
        }
    }

    /// The database lets nobody in: it takes no connections now (55000), or has too many (53300).
    fn is_refused_connection(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        matches!(error.code().as_deref(), Some("55000" | "53300"))
    }

    /// Whether the database is away or overloaded rather than wrong.
    pub fn is_unavailable(&self) -> bool {
        self.is_transient()
            || matches!(
                self,
                Self::Database(
                    sqlx::Error::PoolTimedOut
                        | sqlx::Error::PoolClosed
                        | sqlx::Error::WorkerCrashed
                        | sqlx::Error::Tls(_)
                        | sqlx::Error::Protocol(_)
                )
            )
            || self.is_refused_connection()
    }
}
