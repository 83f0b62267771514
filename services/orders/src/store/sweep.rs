//! What the sweeper looks for.

use std::time::Duration;

use serde::Serialize;
use sqlx::types::Json;
use stampede_contracts::{OrderId, StepId, api::OrderState};
use stampede_postgres::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::rows::unreadable;
use crate::domain::{Pauses, StepKind};

/// A limit on the steps of some kinds that are repeated together, so that they do not wait behind steps of other kinds.
#[derive(Debug, Serialize)]
pub struct Budget {
    kinds: Vec<&'static str>,
    first_s: f64,
    longest_s: f64,
    size: u32,
}

impl Budget {
    /// At most `size` of these kinds at a time, each sent again after `pauses`.
    pub fn new(kinds: &[StepKind], pauses: Pauses, size: u32) -> Self {
        Self {
            kinds: kinds.iter().map(|kind| kind.as_str()).collect(),
            first_s: pauses.first.as_secs_f64(),
            longest_s: pauses.longest.as_secs_f64(),
            size,
        }
    }
}

/// An open step whose time has come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueStep {
    /// Its order.
    pub order_id: OrderId,
    /// The step.
    pub step_id: StepId,
    /// Which repetition this is, from 1.
    pub attempt: u32,
}

/// How far a round over all orders has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    decide_by: OffsetDateTime,
    order_id: Uuid,
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
    /// Takes open steps that are due, out of each budget those that have been due longest, and puts each off until its
    /// next turn: the pause doubled with every repetition up to the longest, half of it random. Steps that another replica
    /// is writing are left out.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn take_due_steps(
        connection: &mut PgConnection,
        budgets: &[Budget],
    ) -> Result<Vec<DueStep>, sqlx::Error> {
        let rows = sqlx::query!(
            "WITH due AS MATERIALIZED (
                SELECT next.step_id, budget.first_s, budget.longest_s
                FROM jsonb_to_recordset($1) AS budget (kinds text[], first_s float8, longest_s float8, size integer)
                CROSS JOIN LATERAL (
                    SELECT step_id FROM step
                    WHERE state = 'open' AND next_at <= now() AND kind = ANY(budget.kinds)
                    ORDER BY next_at LIMIT budget.size FOR UPDATE SKIP LOCKED) AS next
            )
            UPDATE step SET attempt = attempt + 1, repeated_at = now(),
                next_at = now() + make_interval(secs =>
                    least(first_s * power(2, least(attempt + 1, 30)), longest_s) * (0.5 + random() / 2))
            FROM due WHERE step.step_id = ANY(ARRAY(SELECT due.step_id FROM due)) AND step.step_id = due.step_id
            RETURNING order_id, step.step_id, attempt",
            Json(budgets) as _,
        )
        .fetch_all(connection)
        .await?;
        let due = rows.into_iter().map(|row| {
            Ok(DueStep {
                order_id: OrderId::from_uuid(row.order_id),
                step_id: StepId::from_uuid(row.step_id),
                attempt: u32::try_from(row.attempt).map_err(|_| unreadable("step.attempt"))?,
            })
        });
        due.collect()
    }

    /// Orders that have to be decided on although no result came: `decide_by` passed before the pivot, the pause after a
    /// refused refund is over, or nothing of an unsettled order but mails is in flight, which no transaction of this
    /// version leaves behind. At most `limit`, and how far the round over all of them is with these: one of which nothing
    /// follows holds back none behind it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn undecided(
        &self,
        behind: Option<Round>,
        limit: u32,
    ) -> Result<(Vec<OrderId>, Option<Round>), sqlx::Error> {
        let rows = sqlx::query!(
            "SELECT order_id, decide_by FROM orders
             WHERE state IN ('pending', 'failing', 'cancelling')
                AND ($2::timestamptz IS NULL OR (decide_by, order_id) > ($2, $3::uuid)) AND (
                (state = 'pending' AND decide_by <= now() AND NOT EXISTS (
                    SELECT FROM step WHERE step.order_id = orders.order_id AND kind IN ('capture', 'detach')))
                OR NOT EXISTS (
                    SELECT FROM step WHERE step.order_id = orders.order_id
                    AND ((step.state = 'open' AND kind NOT LIKE 'notify\\_%')
                        OR (kind = 'refund' AND step.state = 'refused' AND next_at > now()))))
             ORDER BY decide_by, order_id LIMIT $1",
            i64::from(limit),
            behind.map(|round| round.decide_by),
            behind.map(|round| round.order_id),
        )
        .fetch_all(self.pool())
        .await?;
        let is_over = rows.len() < usize::try_from(limit).unwrap_or(usize::MAX);
        let last = rows.last().filter(|_| !is_over);
        let round = last.map(|row| Round { decide_by: row.decide_by, order_id: row.order_id });
        Ok((rows.into_iter().map(|row| OrderId::from_uuid(row.order_id)).collect(), round))
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
