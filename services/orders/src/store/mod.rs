//! The service's own database: one method a use case. What belongs together is written by one statement, which is one
//! transaction.

mod draft;
mod place;
mod read;
mod rows;
mod save;
mod sweep;

use stampede_postgres::{PgPool, Transaction};

pub use draft::{Draft, Snapshot};
pub use place::{NewOrder, Placement};
pub use read::{Access, Answered, BuyerRow, OrderView};
pub use save::Write;
pub use sweep::{Backlog, Budget, DueStep, Round};

/// The channel on which the database tells every replica that an order changed.
pub const CHANNEL: &str = "orders";

/// Access to the database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// A store on a pool.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The pool, for what listens or purges by itself.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Opens a transaction.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        self.pool.begin().await
    }
}
