//! Forgetting what became of the seats of shows that are over for good.

use std::time::Duration;

use stampede_contracts::{ShowId, Timestamp};

use super::{Store, StoreError};

impl Store {
    /// Forgets holds and journal of one show that has been over for `keep`, at most `limit` rows of the journal with
    /// their holds, and says how many rows went. Zero means that there is nothing left to forget.
    ///
    /// The show is marked before its first row goes, so that nobody takes what is left for the whole of it. A show with
    /// a hold that is still held or ordered waits until that has ended. Blocks stay: they are few, and say for ever how
    /// the show was sold.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn forget_history(
        &self,
        now: Timestamp,
        keep: Duration,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let Some(show) = self.mark_over(now - keep).await? else { return Ok(0) };
        // Every hold has a row in the journal from the transaction that placed it, so the journal leads to all of them,
        // and no index on the busiest table is needed to find those of a show.
        let gone = sqlx::query_scalar!(
            r#"WITH old AS (
                   SELECT journal.block, journal.version
                   FROM block JOIN journal ON journal.block = block.id WHERE block.show = $1 LIMIT $2
               ), gone AS (
                   DELETE FROM journal USING old
                   WHERE journal.block = old.block AND journal.version = old.version RETURNING journal.hold
               ), holds AS (
                   DELETE FROM hold WHERE id IN (SELECT hold FROM gone)
               )
               SELECT count(*) AS "count!" FROM gone"#,
            show.uuid(),
            limit,
        )
        .fetch_one(&self.pool)
        .await?;
        if gone == 0 {
            sqlx::query!("UPDATE show SET history = 'gone' WHERE id = $1", show.uuid())
                .execute(&self.pool)
                .await?;
            // Perhaps another show is over too.
            return Ok(1);
        }
        Ok(gone.unsigned_abs())
    }

    /// The show to forget next: the one that was over first, from now on marked. Locked where it is found: one that is
    /// moved to a later day meanwhile is left alone.
    async fn mark_over(&self, before: Timestamp) -> Result<Option<ShowId>, StoreError> {
        let show = sqlx::query_scalar!(
            "UPDATE show SET history = 'going'
             WHERE id = (
                 SELECT id FROM show
                 WHERE history <> 'gone' AND starts_at < $1 AND cancel_until < $1
                     AND NOT EXISTS (
                         SELECT FROM hold WHERE hold.show = show.id AND hold.state IN ('held', 'attached'))
                 ORDER BY starts_at LIMIT 1 FOR UPDATE
             )
             RETURNING id",
            before.inner(),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(show.map(ShowId::from_uuid))
    }
}
