//! Forgetting what nobody asks for any more, and counting what is there.

use std::time::Duration;

use stampede_contracts::Timestamp;

use super::{Store, StoreError, counts_of};
use crate::domain::block::Counts;

impl Store {
    /// Forgets requests and passes older than `keep`, at most `limit` of each, and says how many went.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn purge(&self, now: Timestamp, keep: Duration, limit: i64) -> Result<u64, StoreError> {
        let before = (now - keep).inner();
        let requests = sqlx::query!(
            "DELETE FROM hold_request WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM hold_request WHERE created_at < $1 LIMIT $2))",
            before,
            limit,
        )
        .execute(&self.pool)
        .await?;
        let passes = sqlx::query!(
            "DELETE FROM pass WHERE ctid = ANY(ARRAY(SELECT ctid FROM pass WHERE created_at < $1 LIMIT $2))",
            before,
            limit,
        )
        .execute(&self.pool)
        .await?;
        Ok(requests.rows_affected() + passes.rows_affected())
    }

    /// How many seats of all shows that are not over are in which state.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn totals(&self, now: Timestamp) -> Result<Counts, StoreError> {
        let row = sqlx::query!(
            r#"SELECT coalesce(sum(free), 0)::int AS "free!", coalesce(sum(held), 0)::int AS "held!",
                      coalesce(sum(attached), 0)::int AS "attached!", coalesce(sum(sold), 0)::int AS "sold!",
                      coalesce(sum(blocked), 0)::int AS "blocked!"
               FROM block JOIN show ON show.id = block.show WHERE starts_at > $1"#,
            now.inner(),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(counts_of([row.free, row.held, row.attached, row.sold, row.blocked]))
    }
}
