//! The lobby's database. One method a use case; the show's row is locked by whoever changes its line.

mod history;
mod line;
mod place;
mod show;

pub use line::Called;
pub use place::{Place, Slot};
pub use show::Show;

use sqlx::migrate::Migrator;
use stampede_postgres::PgPool;

/// The schema.
pub static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// The lobby's database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// On a migrated database.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
