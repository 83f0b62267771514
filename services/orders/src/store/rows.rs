//! Rows, and what they mean. A row that means nothing is an error, not a panic.

use sqlx::types::Json;
use stampede_contracts::{
    BlockId, HoldId, Money, OrderId, SessionId, ShowId, StepId, TicketId,
    inventory::{SeatLabel, ShowFacts},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{Facts, Order, OrderSecret, Step, Ticket};

pub(super) struct OrderRow {
    pub order_id: Uuid,
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
}

pub(super) struct StepRow {
    pub order_id: Uuid,
    pub step_id: Uuid,
    pub kind: String,
    pub state: String,
    pub attempt: i32,
    pub repeated_at: Option<OffsetDateTime>,
    pub outcome: Option<String>,
    pub created_at: OffsetDateTime,
    pub done_at: Option<OffsetDateTime>,
    /// The database's clock when the row was read: one clock for all replicas.
    pub now: OffsetDateTime,
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

impl OrderRow {
    /// The order with those of the steps that are its own.
    pub(super) fn into_order(self, steps: &[StepRow]) -> Result<Order, sqlx::Error> {
        let own = steps.iter().filter(|step| step.order_id == self.order_id);
        Ok(Order {
            id: OrderId::from_uuid(self.order_id),
            session: SessionId::from_uuid(self.session_id),
            state: self.state.parse().map_err(|()| unreadable("orders.state"))?,
            hold_id: hold_id(self.hold_block, self.hold_id),
            facts: self.facts()?,
            secret: OrderSecret::from_stored(self.order_secret),
            created_at: self.created_at.into(),
            decide_by: self.decide_by.into(),
            cancel_requested_at: self.cancel_requested_at.map(Into::into),
            settled_at: self.settled_at.map(Into::into),
            traceparent: self.traceparent,
            replied: self.reply_status.and_then(|status| u16::try_from(status).ok()),
            steps: own.map(StepRow::to_step).collect::<Result<_, _>>()?,
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
}

impl StepRow {
    fn to_step(&self) -> Result<Step, sqlx::Error> {
        Ok(Step {
            id: StepId::from_uuid(self.step_id),
            kind: self.kind.parse().map_err(|()| unreadable("step.kind"))?,
            state: self.state.parse().map_err(|()| unreadable("step.state"))?,
            attempt: u32::try_from(self.attempt).map_err(|_| unreadable("step.attempt"))?,
            repeated_at: self.repeated_at.map(Into::into),
            outcome: self.outcome.clone(),
            created_at: self.created_at.into(),
            done_at: self.done_at.map(Into::into),
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
