//! Which events were seen: a row for each, committed together with the event's effect.
//!
//! Where the effect is one statement, that statement can insert the rows as well; the primary key then refuses an effect
//! that is not the first.
//!
//! The table belongs to one consumer. Where two consumers of a service read the same events, each effect needs a key
//! of its own instead.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::Row;
use stampede_postgres::{PgConnection, PgPool};

/// The table, to be copied into a migration of the service.
pub const SCHEMA: &str = include_str!("inbox.sql");

/// Rows deleted by one statement of [`purge`], so that none of them holds its locks for long.
const PURGE_ROWS: i64 = 10_000;

/// Claims events in the caller's transaction: true for each that was not seen before, in the order of `ce_ids`. Of a
/// repeated id only the first is new.
///
/// Another transaction that claims the same event waits until this one ends; if this one is rolled back, the other
/// finds the event new. The ids are claimed in sorted order, so two batches cannot wait for each other.
///
/// # Errors
/// Those of the database; the transaction is then of no more use.
pub async fn claim(connection: &mut PgConnection, ce_ids: &[&str]) -> Result<Vec<bool>, sqlx::Error> {
    let claimed = sqlx::query(
        "INSERT INTO inbox (ce_id) SELECT id FROM unnest($1::text[]) AS id ORDER BY id \
         ON CONFLICT (ce_id) DO NOTHING RETURNING ce_id",
    )
    .bind(ce_ids)
    .fetch_all(connection)
    .await?;
    let mut new = claimed.iter().map(|row| row.try_get("ce_id")).collect::<Result<HashSet<&str>, _>>()?;
    Ok(ce_ids.iter().map(|id| new.remove(id)).collect())
}

/// Forgets events seen longer ago than `older_than`, and says how many. It has to be longer than any event can be
/// delivered again, by the broker or by somebody who replays dead letters.
///
/// # Errors
/// Those of the database; what was deleted before stays deleted.
pub async fn purge(pool: &PgPool, older_than: Duration) -> Result<u64, sqlx::Error> {
    let mut purged = 0;
    loop {
        let rows = sqlx::query(
            "DELETE FROM inbox WHERE ctid = ANY (ARRAY( \
             SELECT ctid FROM inbox WHERE seen_at < now() - make_interval(secs => $1) LIMIT $2))",
        )
        .bind(older_than.as_secs_f64())
        .bind(PURGE_ROWS)
        .execute(pool)
        .await?
        .rows_affected();
        purged += rows;
        if rows == 0 {
            return Ok(purged);
        }
    }
}
