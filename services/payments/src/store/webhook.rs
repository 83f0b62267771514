//! What the provider's webhooks do: wake a row.

use std::time::Duration;

use stampede_contracts::StepId;

use super::Store;
use super::row::interval;

/// What a webhook found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The operation is open and due now.
    Woken,
    /// The same webhook was here before.
    Duplicate,
    /// The operation has its outcome, so there is nothing to do.
    Settled,
    /// No such operation was ever taken.
    Unknown,
}

impl Store {
    /// Makes an open operation due at once; one webhook does so once. Of operations that have an outcome nothing is
    /// written down: most webhooks come after the answer and cost no transaction.
    ///
    /// # Errors
    /// Of the database.
    pub async fn wake(&self, webhook: &str, step: StepId) -> Result<Wake, sqlx::Error> {
        let is_settled = sqlx::query_scalar!(
            r#"SELECT outcome IS NOT NULL AS "is_settled!" FROM operation WHERE step_id = $1"#,
            step.uuid(),
        )
        .fetch_optional(&self.pool)
        .await?;
        match is_settled {
            None => return Ok(Wake::Unknown),
            Some(true) => return Ok(Wake::Settled),
            Some(false) => {}
        }
        let mut tx = self.pool.begin().await?;
        let is_new =
            sqlx::query!("INSERT INTO webhook (id) VALUES ($1) ON CONFLICT (id) DO NOTHING", webhook)
                .execute(&mut *tx)
                .await?
                .rows_affected();
        if is_new == 0 {
            return Ok(Wake::Duplicate);
        }
        let woken = sqlx::query!(
            "UPDATE operation SET due_at = now() WHERE step_id = $1 AND outcome IS NULL",
            step.uuid(),
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        tx.commit().await?;
        Ok(if woken == 0 { Wake::Settled } else { Wake::Woken })
    }

    /// Forgets webhooks received longer ago than `older_than`, which has to be longer than one is believed.
    ///
    /// # Errors
    /// Of the database.
    pub async fn forget_webhooks(&self, older_than: Duration) -> Result<u64, sqlx::Error> {
        let forgotten = sqlx::query!(
            "DELETE FROM webhook WHERE received_at < now() - $1::interval",
            interval(older_than)
        )
        .execute(&self.pool)
        .await?;
        Ok(forgotten.rows_affected())
    }
}
