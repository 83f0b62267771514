//! Who drives which row. A lease is only a courtesy: two workers on one row do no harm, because the provider knows
//! the key and the outcome is written once.

use std::time::Duration;

use stampede_contracts::StepId;
use uuid::Uuid;

use super::Store;
use super::row::{OperationRow, interval};
use crate::domain::Operation;

impl Store {
    /// Leases at most `limit` rows that are due, the longest due first. Replicas do not wait for each other.
    ///
    /// # Errors
    /// Of the database.
    pub async fn lease_due(&self, limit: usize) -> Result<Vec<Operation>, sqlx::Error> {
        let rows = sqlx::query_as!(
            OperationRow,
            "UPDATE operation SET due_at = now() + $2, leased_by = $3, attempts = attempts + 1
             WHERE step_id IN (SELECT step_id FROM operation WHERE outcome IS NULL AND due_at <= now()
                               ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
             RETURNING step_id, order_id, action, amount, currency, authorisation, given_up, attempts, traceparent",
            i64::try_from(limit).unwrap_or(i64::MAX),
            interval(self.lease.length),
            self.lease.instance,
        )
        .fetch_all(&self.pool)
        .await?;
        // One that cannot be read is the matter of a person, or of a newer version: it does not hold back the others.
        let operations = rows.into_iter().filter_map(|row| {
            let step = row.step_id;
            let unreadable = |error| tracing::error!(%step, %error, "an operation cannot be read");
            row.operation().map_err(unreadable).ok()
        });
        Ok(operations.collect())
    }

    /// Ends a lease after an attempt without outcome: the row is due again after `delay`.
    ///
    /// # Errors
    /// Of the database; the lease then ends by itself.
    pub async fn postpone(&self, step: StepId, delay: Duration, error: &str) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE operation SET due_at = now() + $3, leased_by = NULL, last_error = $4
             WHERE step_id = $1 AND leased_by = $2 AND outcome IS NULL",
            step.uuid(),
            self.lease.instance,
            interval(delay),
            error,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Ends the leases of rows that were not worked on: they are due at once, for anybody.
    ///
    /// # Errors
    /// Of the database; the leases then end by themselves.
    pub async fn release(&self, steps: &[StepId]) -> Result<(), sqlx::Error> {
        let steps: Vec<Uuid> = steps.iter().map(StepId::uuid).collect();
        sqlx::query!(
            "UPDATE operation SET due_at = now(), leased_by = NULL
             WHERE step_id = ANY($1) AND leased_by = $2 AND outcome IS NULL",
            &steps,
            self.lease.instance,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Ends all leases of this instance, when it starts: its predecessor of the same name is dead.
    ///
    /// # Errors
    /// Of the database.
    pub async fn release_all(&self) -> Result<u64, sqlx::Error> {
        let released = sqlx::query!(
            "UPDATE operation SET due_at = now(), leased_by = NULL WHERE leased_by = $1 AND outcome IS NULL",
            self.lease.instance,
        )
        .execute(&self.pool)
        .await?;
        Ok(released.rows_affected())
    }

    /// How many operations have no outcome, by action.
    ///
    /// # Errors
    /// Of the database.
    pub async fn count_open(&self) -> Result<Vec<(String, i64)>, sqlx::Error> {
        let rows = sqlx::query!(
            r#"SELECT action, count(*) AS "count!" FROM operation WHERE outcome IS NULL GROUP BY action"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.action, row.count)).collect())
    }
}
