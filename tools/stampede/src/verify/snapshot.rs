//! One moment of every database.
//!
//! The databases know nothing of each other's transactions, so their snapshots are taken in an order in which a
//! difference means something: first those of nodes that are told what to do, last those of nodes that tell. What the
//! provider did was wanted by an order that the later snapshot of `orders` shows; and what an order says was done
//! before the first snapshot is in all of them. Whatever came to rest after the first snapshot is left out.

use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Postgres, Transaction};
use time::OffsetDateTime;

use super::Databases;
use super::report::Found;

type Pinned = Transaction<'static, Postgres>;

/// The sentences of one query that are read; the rest is counted.
const SENTENCES_MAX: usize = 20;

/// A snapshot of every database.
pub(super) struct Snapshots {
    pub(super) psp: Pinned,
    pub(super) payments: Pinned,
    pub(super) notify: Pinned,
    pub(super) inventory: Pinned,
    pub(super) lobby: Pinned,
    pub(super) orders: Pinned,
    pub(super) catalog: Pinned,
    /// What is younger is left out.
    pub(super) cutoff: OffsetDateTime,
}

impl Snapshots {
    pub(super) async fn take(databases: &Databases, younger_than: Duration) -> Result<Self> {
        let (psp, began) = pin(&databases.psp, "psp-sim").await?;
        let (payments, _) = pin(&databases.payments, "payments").await?;
        let (notify, _) = pin(&databases.notify, "notify").await?;
        let (inventory, _) = pin(&databases.inventory, "inventory").await?;
        let (lobby, _) = pin(&databases.lobby, "lobby").await?;
        let (orders, _) = pin(&databases.orders, "orders").await?;
        let (catalog, _) = pin(&databases.catalog, "catalog").await?;
        let cutoff = began - younger_than;
        Ok(Self { psp, payments, notify, inventory, lobby, orders, catalog, cutoff })
    }
}

/// The snapshot is taken by the first query, and not by `BEGIN`.
async fn pin(pool: &PgPool, of: &str) -> Result<(Pinned, OffsetDateTime)> {
    let pinned = async {
        let mut pinned = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let now = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut *pinned).await?;
        Ok::<_, sqlx::Error>((pinned, now))
    };
    pinned.await.with_context(|| format!("the database of {of} cannot be read"))
}

/// Runs a query that gives a sentence for every broken case. `$1` is the moment from which on things are too young.
pub(super) async fn find(
    found: &mut Found,
    database: &mut PgConnection,
    cutoff: OffsetDateTime,
    broken: &str,
) -> Result<()> {
    // The parameter is named here once more because Postgres refuses one that a query does not use.
    let query = format!(
        "SELECT sentence, count(*) OVER () FROM ({broken}) AS broken (sentence)
         WHERE $1::timestamptz IS NOT NULL LIMIT {SENTENCES_MAX}"
    );
    let rows: Vec<(String, i64)> =
        sqlx::query_as(AssertSqlSafe(query)).bind(cutoff).fetch_all(database).await?;
    let total = rows.first().map_or(0, |(_, total)| *total);
    found.broken_many(
        u64::try_from(total).unwrap_or_default(),
        rows.into_iter().map(|(sentence, _)| sentence).collect(),
    );
    Ok(())
}

/// Counts what a check looks at.
pub(super) async fn count(
    found: &mut Found,
    database: &mut PgConnection,
    what: &'static str,
    query: &'static str,
) -> Result<()> {
    let number: i64 = sqlx::query_scalar(query).fetch_one(database).await?;
    found.checked(number, what);
    Ok(())
}
