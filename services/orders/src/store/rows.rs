//! Rows, and what they mean. A row that means nothing is an error, not a panic.

use sqlx::types::Json;
use stampede_contracts::{
    BlockId, HoldId, Money, OrderId, SessionId, ShowId, StepId, TicketId,
    inventory::{SeatLabel, ShowFacts},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Snapshot;
use crate::domain::{Facts, Order, OrderSecret, Step, Ticket};

/// An order beside one of its steps: an order comes as often as it has steps.
pub(super) struct OrderStepRow {
    pub order_id: Uuid,
    pub version: i64,
    pub session_id: Uuid,
    pub state: String,
    pub hold_block: i64,
    pub hold_id: Uuid,
    pub show_id: Option<Uuid>,
    pub show_title: Option<String>,
    pub venue: Option<String>,
    pub starts_at: Option<OffsetDateTime>,
    pub cancel_until: Option<OffsetDateTime>,
    pub amount: Option<i64>,
    pub currency: Option<String>,
    pub quantity: Option<i32>,
    pub seats: Option<Json<Vec<SeatLabel>>>,
    pub order_secret: String,
    pub decide_by: OffsetDateTime,
    pub cancel_requested_at: Option<OffsetDateTime>,
    pub settled_at: Option<OffsetDateTime>,
    pub traceparent: Option<String>,
    pub reply_status: Option<i16>,
    pub created_at: OffsetDateTime,
    /// The database's clock when the row was read.
    pub now: OffsetDateTime,
    pub step_id: Uuid,
    pub step_kind: String,
    pub step_state: String,
    pub step_attempt: i32,
    pub step_repeated_at: Option<OffsetDateTime>,
    pub step_outcome: Option<String>,
    pub step_created_at: OffsetDateTime,
    pub step_done_at: Option<OffsetDateTime>,
}

pub(super) struct TicketRow {
    pub ticket_id: Uuid,
    pub order_id: Uuid,
    pub show_id: Uuid,
    pub label: Json<SeatLabel>,
    pub code: String,
    pub created_at: OffsetDateTime,
    pub revoked_at: Option<OffsetDateTime>,
}

/// A stored value that this version cannot read.
pub(super) fn unreadable(column: &'static str) -> sqlx::Error {
    sqlx::Error::Decode(format!("the column {column} holds a value that is not known").into())
}

pub(super) fn hold_id(block: i64, random: Uuid) -> HoldId {
    HoldId::from_parts(BlockId::from_number(block), random)
}

/// The orders in rows that are sorted by order.
pub(super) fn snapshots(rows: &[OrderStepRow]) -> Result<Vec<Snapshot>, sqlx::Error> {
    rows.chunk_by(|one, next| one.order_id == next.order_id).map(snapshot).collect()
}

/// The order of which these rows are.
fn snapshot(rows: &[OrderStepRow]) -> Result<Snapshot, sqlx::Error> {
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let steps = rows.iter().map(OrderStepRow::step).collect::<Result<_, _>>()?;
    Ok(Snapshot::new(first.order(steps)?, first.version, first.now.into()))
}

impl OrderStepRow {
    fn order(&self, steps: Vec<Step>) -> Result<Order, sqlx::Error> {
        Ok(Order {
            id: OrderId::from_uuid(self.order_id),
            session: SessionId::from_uuid(self.session_id),
            state: self.state.parse().map_err(|()| unreadable("orders.state"))?,
            hold_id: hold_id(self.hold_block, self.hold_id),
            facts: self.facts()?,
            secret: OrderSecret::from_stored(self.order_secret.clone()),
            created_at: self.created_at.into(),
            decide_by: self.decide_by.into(),
            cancel_requested_at: self.cancel_requested_at.map(Into::into),
            settled_at: self.settled_at.map(Into::into),
            traceparent: self.traceparent.clone(),
            replied: self.reply_status.and_then(|status| u16::try_from(status).ok()),
            steps,
        })
    }

    fn facts(&self) -> Result<Option<Facts>, sqlx::Error> {
        // All or none of them, says a constraint.
        let (Some(show_id), Some(title), Some(venue), Some(starts_at), Some(cancel_until)) =
            (self.show_id, &self.show_title, &self.venue, self.starts_at, self.cancel_until)
        else {
            return Ok(None);
        };
        let (Some(amount), Some(currency), Some(quantity), Some(seats)) =
            (self.amount, &self.currency, self.quantity, &self.seats)
        else {
            return Ok(None);
        };
        let currency = currency.parse().map_err(|_| unreadable("orders.currency"))?;
        Ok(Some(Facts {
            show_id: ShowId::from_uuid(show_id),
            show: ShowFacts {
                title: title.clone(),
                venue: venue.clone(),
                starts_at: starts_at.into(),
                cancel_until: cancel_until.into(),
            },
            total: Money::try_new(amount, currency).map_err(|_| unreadable("orders.amount"))?,
            quantity: u32::try_from(quantity).map_err(|_| unreadable("orders.quantity"))?,
            seats: seats.0.clone(),
        }))
    }

    fn step(&self) -> Result<Step, sqlx::Error> {
        Ok(Step {
            id: StepId::from_uuid(self.step_id),
            kind: self.step_kind.parse().map_err(|()| unreadable("step.kind"))?,
            state: self.step_state.parse().map_err(|()| unreadable("step.state"))?,
            attempt: u32::try_from(self.step_attempt).map_err(|_| unreadable("step.attempt"))?,
            repeated_at: self.step_repeated_at.map(Into::into),
            outcome: self.step_outcome.clone(),
            created_at: self.step_created_at.into(),
            done_at: self.step_done_at.map(Into::into),
        })
    }
}

impl From<TicketRow> for Ticket {
    fn from(row: TicketRow) -> Self {
        Self {
            id: TicketId::from_uuid(row.ticket_id),
            order_id: OrderId::from_uuid(row.order_id),
            show_id: ShowId::from_uuid(row.show_id),
            seat: row.label.0,
            code: row.code,
            created_at: row.created_at.into(),
            revoked_at: row.revoked_at.map(Into::into),
        }
    }
}
