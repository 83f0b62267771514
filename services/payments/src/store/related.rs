//! What other steps of an order have come to.

use stampede_contracts::StepId;

use super::Store;
use super::row::interval;
use crate::domain::{Authorisation, Captured, Operation};

impl Store {
    /// What is known of an authorise step.
    ///
    /// # Errors
    /// Of the database.
    pub async fn authorisation(&self, step: StepId) -> Result<Authorisation, sqlx::Error> {
        let row = sqlx::query!(
            "SELECT outcome, reference FROM operation WHERE step_id = $1 AND action = 'authorise'",
            step.uuid(),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(match row.map(|row| (row.outcome, row.reference)) {
            None => Authorisation::Absent,
            Some((None, _)) => Authorisation::Open,
            Some((Some(_), Some(reference))) => Authorisation::Authorised { reference },
            Some((Some(_), None)) => Authorisation::Failed,
        })
    }

    /// What is known of the capture of an authorise step.
    ///
    /// # Errors
    /// Of the database.
    pub async fn captured(&self, authorisation: StepId) -> Result<Captured, sqlx::Error> {
        // The one that succeeded, else one that is open.
        let row = sqlx::query_scalar!(
            "SELECT reference FROM operation
             WHERE authorisation = $1 AND action = 'capture' AND outcome IS DISTINCT FROM 'refused'
             ORDER BY reference IS NULL LIMIT 1",
            authorisation.uuid(),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(match row {
            None => Captured::No,
            Some(None) => Captured::Open,
            Some(Some(reference)) => Captured::Yes { reference },
        })
    }

    /// Gives an authorise step up: whoever drives it cancels it instead of asking for it. One that has not come is
    /// written down, so that its command finds this when it comes.
    ///
    /// # Errors
    /// Of the database.
    pub async fn give_up(&self, authorisation: StepId, void: &Operation) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "INSERT INTO operation (step_id, order_id, action, amount, currency, given_up, traceparent, due_at)
             VALUES ($1, $2, 'authorise', $3, $4, true, $5, now() + $6)
             ON CONFLICT (step_id) DO UPDATE SET given_up = true
             WHERE operation.outcome IS NULL AND NOT operation.given_up AND operation.action = 'authorise'",
            authorisation.uuid(),
            void.order.uuid(),
            void.amount.amount(),
            void.amount.currency().to_string(),
            void.traceparent,
            interval(self.lease.length),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
