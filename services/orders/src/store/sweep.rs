//! What the sweeper looks for.

use std::time::Duration;

use stampede_contracts::{OrderId, StepId, api::OrderState};
use stampede_postgres::PgConnection;

use super::Store;
use super::rows::unreadable;
use crate::domain::StepKind;

/// An open step whose time has come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueStep {
    /// Its order.
    pub order_id: OrderId,
    /// The step.
    pub step_id: StepId,
    /// What it does.
    pub kind: StepKind,
    /// Which repetition this is, from 1.
    pub attempt: u32,
}

/// Orders that have not come to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Their state.
    pub state: OrderState,
    /// How many.
    pub orders: u64,
    /// How long the oldest has been on its way: since it was placed, or since it was cancelled.
    pub oldest: Duration,
}

impl Store {
    /// Takes open steps that are due, and puts each off until its next turn: `retry_after` doubled with every
    /// repetition up to `retry_max`, half of it random. Steps that another replica is just writing are left out.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn take_due_steps(
        connection: &mut PgConnection,
        retry_after: Duration,
        retry_max: Duration,
        limit: u32,
    ) -> Result<Vec<DueStep>, sqlx::Error> {
        let rows = sqlx::query!(
            "UPDATE step SET attempt = attempt + 1, repeated_at = now(),
                next_at = now() + make_interval(secs =>
                    least($1 * power(2, least(attempt + 1, 30)), $2) * (0.5 + random() / 2))
             WHERE step_id IN (
                SELECT step_id FROM step WHERE state = 'open' AND next_at <= now()
                ORDER BY next_at LIMIT $3 FOR UPDATE SKIP LOCKED)
             RETURNING order_id, step_id, kind, attempt",
            retry_after.as_secs_f64(),
            retry_max.as_secs_f64(),
            i64::from(limit),
        )
        .fetch_all(connection)
        .await?;
        let due = rows.into_iter().map(|row| {
            Ok(DueStep {
                order_id: OrderId::from_uuid(row.order_id),
                step_id: StepId::from_uuid(row.step_id),
                kind: row.kind.parse().map_err(|()| unreadable("step.kind"))?,
                attempt: u32::try_from(row.attempt).map_err(|_| unreadable("step.attempt"))?,
            })
        });
        due.collect()
    }

    /// Orders that have to be decided on although no result came: `decide_by` passed before the pivot, the pause after a
    /// refused refund is over, or nothing of an unsettled order is under way, which no transaction of this version
    /// leaves behind.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn undecided(&self, limit: u32) -> Result<Vec<OrderId>, sqlx::Error> {
        let ids = sqlx::query_scalar!(
            "SELECT order_id FROM orders
             WHERE state IN ('pending', 'failing', 'cancelling') AND (
                (state = 'pending' AND decide_by <= now() AND NOT EXISTS (
                    SELECT FROM step WHERE step.order_id = orders.order_id AND kind IN ('capture', 'detach')))
                OR NOT EXISTS (
                    SELECT FROM step WHERE step.order_id = orders.order_id
                    AND (step.state = 'open' OR (kind = 'refund' AND step.state = 'refused' AND next_at > now()))))
             ORDER BY decide_by LIMIT $1",
            i64::from(limit),
        )
        .fetch_all(self.pool())
        .await?;
        Ok(ids.into_iter().map(OrderId::from_uuid).collect())
    }

    /// How many orders have not come to rest, by state.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn backlog(&self) -> Result<Vec<Backlog>, sqlx::Error> {
        let rows = sqlx::query!(
            "SELECT state, count(*) AS \"orders!\",
                extract(epoch FROM now() - min(greatest(created_at, cancel_requested_at)))::float8 AS \"oldest!\"
             FROM orders WHERE state IN ('pending', 'failing', 'cancelling') GROUP BY state",
        )
        .fetch_all(self.pool())
        .await?;
        let backlog = rows.into_iter().map(|row| {
            Ok(Backlog {
                state: row.state.parse().map_err(|()| unreadable("orders.state"))?,
                orders: u64::try_from(row.orders).unwrap_or_default(),
                oldest: Duration::try_from_secs_f64(row.oldest).unwrap_or_default(),
            })
        });
        backlog.collect()
    }

    /// Forgets keys and stored answers of settled orders placed longer ago than `kept_for`; gives the number.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn forget_keys(&self, kept_for: Duration, limit: u32) -> Result<u64, sqlx::Error> {
        let forgotten = sqlx::query!(
            "UPDATE orders SET idempotency_key = NULL, reply_body = NULL
             WHERE order_id IN (
                SELECT order_id FROM orders
                WHERE idempotency_key IS NOT NULL AND created_at < now() - make_interval(secs => $1)
                    AND settled_at IS NOT NULL
                ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
            kept_for.as_secs_f64(),
            i64::from(limit),
        )
        .execute(self.pool())
        .await?;
        Ok(forgotten.rows_affected())
    }
}
