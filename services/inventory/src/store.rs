//! The truth: everything this service knows, in its own Postgres.
//!
//! One method a use case, one transaction a change. Locks are taken in one order: the row of the pass, the row of the
//! block, and last the unique rows of the request and of the live hold, which the writing statement inserts. Rows of
//! `hold` and `journal` are written only under the lock of their block.

mod change;
mod error;
mod history;
mod hold;
mod housekeeping;
mod pass;
mod place;
mod publish;
mod show;
mod sweep;

pub use change::{Changed, Of};
pub use error::StoreError;
pub use hold::Earlier;
pub use place::{Attempt, Placed};
pub use sweep::Due;

use stampede_outbox::Outbox;
use stampede_postgres::{PgPool, Transaction};

use crate::domain::block::Counts;

/// Begins every change. Waiting for a lock is bounded far below the callers' deadlines: whoever holds one is done
/// within milliseconds, or is stuck.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '200ms'";

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    outbox: Outbox,
}

impl Store {
    /// A store on a pool whose schema is up to date.
    pub fn new(pool: PgPool, outbox: Outbox) -> Self {
        Self { pool, outbox }
    }

    /// The pool.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        self.pool.begin_with(BEGIN).await
    }
}

/// The columns `free`, `held`, `attached`, `sold` and `blocked` as they are stored.
fn counts_of([free, held, attached, sold, blocked]: [i32; 5]) -> Counts {
    Counts {
        free: free.unsigned_abs(),
        held: held.unsigned_abs(),
        attached: attached.unsigned_abs(),
        sold: sold.unsigned_abs(),
        blocked: blocked.unsigned_abs(),
    }
}

/// The columns `free`, `held`, `attached` and `sold` to be stored. Nothing here changes `blocked`.
fn numbers_of(counts: &Counts) -> [i32; 4] {
    // A block has at most a thousand seats.
    [counts.free, counts.held, counts.attached, counts.sold]
        .map(|count| i32::try_from(count).unwrap_or(i32::MAX))
}
