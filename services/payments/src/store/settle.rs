//! Writing an outcome: with the ledger's entries and the event that tells of it, in one statement and so in one
//! transaction.

use sqlx::types::Json;
use stampede_contracts::event::{PaymentOutcome, PaymentResult};

use super::Store;
use super::row::columns;
use crate::domain::{Operation, entries};
use crate::events;

impl Store {
    /// Writes the outcome of an operation, and says whether it had none yet. Somebody else may have been faster, with
    /// the same outcome: the provider has one per key.
    ///
    /// # Errors
    /// Of the database; the outcome is then written later, or was written.
    pub async fn settle(&self, operation: &Operation, outcome: &PaymentOutcome) -> Result<bool, sqlx::Error> {
        let (word, reference, reason) = columns(outcome);
        let entries = entries(operation.action, outcome, operation.amount);
        let accounts: Vec<String> = entries.iter().map(|entry| entry.account.as_str().to_owned()).collect();
        let amounts: Vec<i64> = entries.iter().map(|entry| entry.amount).collect();
        let result = PaymentResult {
            step_id: operation.step,
            order_id: operation.order,
            action: operation.action,
            outcome: outcome.clone(),
        };
        let message = events::result(&result, operation.traceparent.clone())
            .map_err(|error| sqlx::Error::Encode(error.into()))?;
        let message = self.outbox.row(&operation.order.to_string(), message);
        let is_first = sqlx::query!(
            "WITH settled AS (
                UPDATE operation
                SET outcome = $2, reference = $3, reason = $4, settled_at = now(), leased_by = NULL, last_error = NULL
                WHERE step_id = $1 AND outcome IS NULL
                RETURNING step_id
            ), booked AS (
                INSERT INTO entry (step_id, account, amount, currency)
                SELECT step_id, account, amount, $7
                FROM settled, unnest($5::text[], $6::bigint[]) AS new (account, amount)
            ), stored AS (
                INSERT INTO outbox (partition, aggregate, subject, ce_id, ce_source, ce_type, ce_time,
                    correlation_id, causation_id, traceparent, msg_id, payload)
                SELECT partition, aggregate, subject, ce_id, ce_source, ce_type, ce_time,
                    correlation_id, causation_id, traceparent, msg_id, convert_to(payload, 'UTF8')
                FROM settled, jsonb_to_record($8) AS new (partition smallint, aggregate bigint, subject text,
                    ce_id text, ce_source text, ce_type text, ce_time timestamptz, correlation_id text,
                    causation_id text, traceparent text, msg_id text, payload text)
            )
            SELECT CASE WHEN $9 THEN pg_notify($10, '')::text END AS woken FROM settled",
            operation.step.uuid(),
            word,
            reference,
            reason,
            &accounts,
            &amounts,
            operation.amount.currency().to_string(),
            Json(&message) as _,
            message.is_held_elsewhere(),
            stampede_outbox::CHANNEL,
        )
        .fetch_optional(&self.pool)
        .await?
        .is_some();
        if is_first {
            self.outbox.nudge();
        }
        Ok(is_first)
    }
}
