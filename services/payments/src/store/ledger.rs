//! Reading the books, for reconciliation. Only reads, so that a read-only role can do it.

use stampede_contracts::command::PaymentAction;
use stampede_contracts::event::PaymentOutcome;
use stampede_contracts::{Money, OrderId, StepId, Timestamp};
use stampede_postgres::PgPool;
use uuid::Uuid;

use super::row::{action, money, outcome};

/// An operation with its outcome, if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnOperation {
    /// The step.
    pub step: StepId,
    /// The order.
    pub order: OrderId,
    /// What was asked.
    pub action: PaymentAction,
    /// How much.
    pub amount: Money,
    /// What became of it, and when that was written.
    pub outcome: Option<(PaymentOutcome, Timestamp)>,
}

/// What an account says about one operation or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnBalance {
    /// ISO 4217.
    pub currency: String,
    /// Debits less credits of `receivable:psp`, in minor units.
    pub receivable: i64,
    /// Debits less credits of all accounts: zero, or the books are wrong.
    pub total: i64,
}

/// The operations of these steps, in no order; steps that were never taken are left out.
///
/// # Errors
/// Of the database.
pub async fn operations(pool: &PgPool, steps: &[StepId]) -> Result<Vec<OwnOperation>, sqlx::Error> {
    let steps: Vec<Uuid> = steps.iter().map(StepId::uuid).collect();
    let rows = sqlx::query_as!(
        OwnRow,
        "SELECT step_id, order_id, action, amount, currency, outcome, reference, reason, settled_at
         FROM operation WHERE step_id = ANY($1)",
        &steps,
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(OwnRow::operation).collect()
}

/// The operations that succeeded before `before`, in the order of their steps, after a step.
///
/// # Errors
/// Of the database.
pub async fn succeeded(
    pool: &PgPool,
    after: Option<StepId>,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<OwnOperation>, sqlx::Error> {
    let rows = sqlx::query_as!(
        OwnRow,
        "SELECT step_id, order_id, action, amount, currency, outcome, reference, reason, settled_at
         FROM operation
         WHERE outcome = 'succeeded' AND settled_at < $2 AND step_id > $1
         ORDER BY step_id LIMIT $3",
        after.map_or(Uuid::nil(), |step| step.uuid()),
        before.inner(),
        limit,
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(OwnRow::operation).collect()
}

/// What the ledger says, by currency.
///
/// # Errors
/// Of the database.
pub async fn balances(pool: &PgPool) -> Result<Vec<OwnBalance>, sqlx::Error> {
    sqlx::query_as!(
        OwnBalance,
        r#"SELECT currency, coalesce(sum(amount) FILTER (WHERE account = 'receivable:psp'), 0)::bigint AS "receivable!",
                  sum(amount)::bigint AS "total!"
           FROM entry GROUP BY currency ORDER BY currency"#,
    )
    .fetch_all(pool)
    .await
}

/// Operations whose entries are not those that their outcome asks for.
///
/// # Errors
/// Of the database.
pub async fn misbooked(pool: &PgPool, limit: i64) -> Result<Vec<StepId>, sqlx::Error> {
    let steps = sqlx::query_scalar!(
        r#"SELECT o.step_id FROM operation o LEFT JOIN entry e ON e.step_id = o.step_id AND e.account = 'receivable:psp'
           WHERE coalesce(e.amount, 0) <>
               CASE WHEN o.outcome = 'succeeded' AND o.action = 'capture' THEN o.amount
                    WHEN o.outcome = 'succeeded' AND o.action = 'refund' THEN -o.amount
                    ELSE 0 END
           LIMIT $1"#,
        limit,
    )
    .fetch_all(pool)
    .await?;
    Ok(steps.into_iter().map(StepId::from_uuid).collect())
}

struct OwnRow {
    step_id: Uuid,
    order_id: Uuid,
    action: String,
    amount: i64,
    currency: String,
    outcome: Option<String>,
    reference: Option<String>,
    reason: Option<String>,
    settled_at: Option<time::OffsetDateTime>,
}

impl OwnRow {
    fn operation(self) -> Result<OwnOperation, sqlx::Error> {
        let outcome = match (self.outcome, self.settled_at) {
            (Some(word), Some(at)) => {
                Some((outcome(&word, self.reference, self.reason)?, Timestamp::from(at)))
            }
            _ => None,
        };
        Ok(OwnOperation {
            step: StepId::from_uuid(self.step_id),
            order: OrderId::from_uuid(self.order_id),
            action: action(&self.action)?,
            amount: money(self.amount, &self.currency)?,
            outcome,
        })
    }
}
