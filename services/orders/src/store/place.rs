//! Placing an order: key, order and first step in one statement, which is one transaction.

use std::time::Duration;

use stampede_contracts::{HoldId, OrderId, SessionId, StepId, api::OrderState};
use stampede_idempotency::{Fingerprint, Key};

use super::rows::unreadable;
use super::{Snapshot, Store};
use crate::domain::{Buyer, CardToken, Order, OrderSecret, Step, StepKind};

/// What a request to place an order becomes.
#[derive(Debug)]
pub struct NewOrder {
    /// The order, if it is a new one.
    pub id: OrderId,
    /// Whose.
    pub session: SessionId,
    /// With the session unique.
    pub key: Key,
    /// Of path and body.
    pub fingerprint: Fingerprint,
    /// The hold to buy.
    pub hold_id: HoldId,
    /// Who buys.
    pub buyer: Buyer,
    /// With what.
    pub card: CardToken,
    /// Reads the order without its session.
    pub secret: OrderSecret,
    /// The trace of the request.
    pub traceparent: Option<String>,
    /// The step `attach`.
    pub attach: StepId,
    /// How long the way to the pivot may take.
    pub decide_within: Duration,
    /// How long the request that brought it waits for an answer.
    pub answer_within: Duration,
    /// When the first step is tried by the sweeper.
    pub retry_after: Duration,
}

/// Whether the key was new.
#[derive(Debug)]
pub enum Placement {
    /// The order is placed.
    New(Box<Snapshot>),
    /// The session used this key before.
    Known {
        /// The order it placed.
        id: OrderId,
        /// Of the request that did.
        fingerprint: Fingerprint,
    },
}

impl Store {
    /// Places an order, unless the session used the key before.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn place(&self, new: NewOrder) -> Result<Placement, sqlx::Error> {
        let placed = sqlx::query!(
            "WITH placed AS (
                INSERT INTO orders (order_id, session_id, idempotency_key, fingerprint, state, hold_block, hold_id,
                    buyer_name, buyer_email, card_token, order_secret, traceparent,
                    created_at, decide_by, running_until)
                VALUES ($1, $2, $3, $4, 'pending', $5, $6, $7, $8, $9, $10, $11,
                    now(), now() + make_interval(secs => $12), now() + make_interval(secs => $13))
                ON CONFLICT ON CONSTRAINT orders_key DO NOTHING
                RETURNING order_id, version, created_at, decide_by
            ), begun AS (
                INSERT INTO step (step_id, order_id, kind, created_at, next_at)
                SELECT $14, order_id, 'attach', created_at, created_at + make_interval(secs => $15) FROM placed
            )
            SELECT version, created_at, decide_by FROM placed",
            new.id.uuid(),
            new.session.uuid(),
            new.key.as_str(),
            new.fingerprint.as_bytes().as_slice(),
            new.hold_id.block().number(),
            new.hold_id.uuid(),
            new.buyer.name(),
            new.buyer.email(),
            new.card.expose(),
            new.secret.expose(),
            new.traceparent,
            new.decide_within.as_secs_f64(),
            new.answer_within.as_secs_f64(),
            new.attach.uuid(),
            new.retry_after.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(placed) = placed else { return self.known(new.session, &new.key).await };
        let created_at = placed.created_at.into();
        let order = Order {
            id: new.id,
            session: new.session,
            state: OrderState::Pending,
            hold_id: new.hold_id,
            facts: None,
            secret: new.secret,
            created_at,
            decide_by: placed.decide_by.into(),
            cancel_requested_at: None,
            settled_at: None,
            traceparent: new.traceparent,
            replied: None,
            steps: vec![Step::begin(new.attach, StepKind::Attach, created_at)],
        };
        Ok(Placement::New(Box::new(Snapshot::new(order, placed.version, created_at))))
    }

    async fn known(&self, session: SessionId, key: &Key) -> Result<Placement, sqlx::Error> {
        let row = sqlx::query!(
            "SELECT order_id, fingerprint FROM orders WHERE session_id = $1 AND idempotency_key = $2",
            session.uuid(),
            key.as_str(),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Placement::Known {
            id: OrderId::from_uuid(row.order_id),
            fingerprint: Fingerprint::from_slice(&row.fingerprint)
                .ok_or_else(|| unreadable("orders.fingerprint"))?,
        })
    }
}
