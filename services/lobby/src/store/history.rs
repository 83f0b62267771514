//! Forgetting who stood in line for shows that are over.

use std::time::Duration;

use super::Store;

impl Store {
    /// Forgets places of one show that has been over for `keep`, at most `limit`, and says how many went. Zero means
    /// that there is nothing left to forget. Replicas that do it at once only do work twice.
    ///
    /// The show is marked before its first place goes, so that nobody takes what is left for the whole line. It is locked
    /// where it is found, so that one that is moved to a later day meanwhile is left alone.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn forget_history(&self, keep: Duration, limit: i64) -> Result<u64, sqlx::Error> {
        let over = sqlx::query_scalar!(
            "UPDATE show SET history = 'going'
             WHERE show_id = (
                 SELECT show_id FROM show WHERE history <> 'gone' AND starts_at < now() - $1::interval
                 ORDER BY starts_at LIMIT 1 FOR UPDATE
             )
             RETURNING show_id",
            keep as _,
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(show) = over else { return Ok(0) };
        let gone = sqlx::query!(
            "DELETE FROM place WHERE place_id IN (SELECT place_id FROM place WHERE show_id = $1 LIMIT $2)",
            show,
            limit,
        )
        .execute(&self.pool)
        .await?
        .rows_affected();
        if gone == 0 {
            sqlx::query!("UPDATE show SET history = 'gone' WHERE show_id = $1", show)
                .execute(&self.pool)
                .await?;
            // Perhaps another show is over too.
            return Ok(1);
        }
        Ok(gone)
    }
}
