//! Writing an outcome: with the ledger's entries and the event that tells of it, in one transaction.

use stampede_contracts::StepId;
use stampede_contracts::event::{PaymentOutcome, PaymentResult};

use super::Store;
use super::row::{OperationRow, columns};
use crate::domain::{Operation, entries};
use crate::events;

impl Store {
    /// Writes the outcome of a step, if it has none yet; returns the operation then. Somebody else may have been
    /// faster, with the same outcome: the provider has one per key.
    ///
    /// # Errors
    /// Of the database; the outcome is then written later, or was written.
    pub async fn settle(
        &self,
        step: StepId,
        outcome: &PaymentOutcome,
    ) -> Result<Option<Operation>, sqlx::Error> {
        let (word, reference, reason) = columns(outcome);
        let mut tx = self.pool.begin().await?;
        let row = sqlx::query_as!(
            OperationRow,
            "UPDATE operation
             SET outcome = $2, reference = $3, reason = $4, settled_at = now(), leased_by = NULL, last_error = NULL
             WHERE step_id = $1 AND outcome IS NULL
             RETURNING step_id, order_id, action, amount, currency, authorisation, given_up, attempts, traceparent",
            step.uuid(),
            word,
            reference,
            reason,
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(operation) = row.map(OperationRow::operation).transpose()? else {
            return Ok(None);
        };
        let entries = entries(operation.action, outcome, operation.amount);
        if !entries.is_empty() {
            let accounts: Vec<String> =
                entries.iter().map(|entry| entry.account.as_str().to_owned()).collect();
            let amounts: Vec<i64> = entries.iter().map(|entry| entry.amount).collect();
            sqlx::query!(
                "INSERT INTO entry (step_id, account, amount, currency)
                 SELECT $1, account, amount, $4 FROM unnest($2::text[], $3::bigint[]) AS new (account, amount)",
                step.uuid(),
                &accounts,
                &amounts,
                operation.amount.currency().to_string(),
            )
            .execute(&mut *tx)
            .await?;
        }
        let result = PaymentResult {
            step_id: operation.step,
            order_id: operation.order,
            action: operation.action,
            outcome: outcome.clone(),
        };
        let message = events::result(&result, operation.traceparent.clone())
            .map_err(|error| sqlx::Error::Encode(error.into()))?;
        let stored = self.outbox.add(&mut tx, &operation.order.to_string(), &[message]).await?;
        tx.commit().await?;
        stored.nudge();
        Ok(Some(operation))
    }
}
