//! The database: commands that were taken, who drives them, outcomes and the ledger.

mod lease;
pub mod ledger;
mod related;
mod row;
mod settle;
mod take;
mod webhook;

use std::time::Duration;

use sqlx::migrate::Migrator;
use stampede_outbox::Outbox;
use stampede_postgres::PgPool;

pub use take::{Taken, Wanted};
pub use webhook::Wake;

/// The schema.
pub static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// How rows are leased: who does it, and for how long nobody else takes them up.
#[derive(Debug, Clone)]
pub struct LeaseSettings {
    /// This process among its replicas; after a restart under the same name it takes its rows up at once.
    pub instance: String,
    /// Longer than any attempt takes.
    pub length: Duration,
}

/// The store. A handle: clones share the pool.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    outbox: Outbox,
    lease: LeaseSettings,
}

impl Store {
    /// The store in a database with the schema of `migrations/`.
    pub const fn new(pool: PgPool, outbox: Outbox, lease: LeaseSettings) -> Self {
        Self { pool, outbox, lease }
    }

    /// How long a lease lasts.
    pub const fn lease_length(&self) -> Duration {
        self.lease.length
    }
}
