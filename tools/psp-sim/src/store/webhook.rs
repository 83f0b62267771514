//! What the merchant has yet to be told.

use time::OffsetDateTime;

use super::Store;
use super::row::Row;
use crate::domain::Operation;

/// A webhook that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueWebhook {
    /// Names the event; the same however often it is sent.
    pub event_id: String,
    /// How often it was tried, this time included.
    pub attempts: i32,
    /// What it tells about.
    pub operation: Operation,
}

impl Store {
    /// Takes webhooks that are due and leaves them alone for `lease`, in which they have to be settled.
    ///
    /// # Errors
    /// Of the database.
    pub async fn due_webhooks(
        &self,
        limit: i64,
        lease: time::Duration,
    ) -> Result<Vec<DueWebhook>, sqlx::Error> {
        let rows = sqlx::query!(
            r#"WITH due AS (
                   UPDATE webhook SET attempts = attempts + 1, due_at = now() + make_interval(secs => $2)
                   WHERE event_id IN (SELECT event_id FROM webhook WHERE due_at <= now()
                                      ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
                   RETURNING event_id, key, attempts)
               SELECT due.event_id, due.attempts, o.key, o.seq, o.kind, o.status, o.id, o.about, o.amount,
                      o.currency, o.reference, o.reason, o.fingerprint, o.at
               FROM due JOIN operation o USING (key)"#,
            limit,
            lease.as_seconds_f64(),
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let operation = Row {
                    key: row.key,
                    seq: row.seq,
                    kind: row.kind,
                    status: row.status,
                    id: row.id,
                    about: row.about,
                    amount: row.amount,
                    currency: row.currency,
                    reference: row.reference,
                    reason: row.reason,
                    fingerprint: row.fingerprint,
                    at: row.at,
                };
                Ok(DueWebhook {
                    event_id: row.event_id,
                    attempts: row.attempts,
                    operation: operation.operation()?,
                })
            })
            .collect()
    }

    /// Forgets webhooks that were delivered, or given up.
    ///
    /// # Errors
    /// Of the database.
    pub async fn forget_webhooks(&self, event_ids: &[String]) -> Result<(), sqlx::Error> {
        sqlx::query!("DELETE FROM webhook WHERE event_id = ANY($1)", event_ids).execute(&self.pool).await?;
        Ok(())
    }

    /// Says when webhooks are tried again.
    ///
    /// # Errors
    /// Of the database.
    pub async fn postpone_webhooks(
        &self,
        event_ids: &[String],
        due_at: &[OffsetDateTime],
    ) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE webhook SET due_at = later.due_at
             FROM unnest($1::text[], $2::timestamptz[]) AS later (event_id, due_at)
             WHERE webhook.event_id = later.event_id",
            event_ids,
            due_at,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
