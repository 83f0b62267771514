//! Tickets of a confirmed order.

use stampede_contracts::{
    OrderId, ShowId, TicketId, Timestamp, api, inventory::SeatLabel, signed::SigningKey, signed::TicketCode,
};

use super::{Facts, Order};

/// A ticket for one seat or place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The ticket.
    pub id: TicketId,
    /// Its order.
    pub order_id: OrderId,
    /// Its show.
    pub show_id: ShowId,
    /// The seat.
    pub seat: SeatLabel,
    /// What a scanner reads.
    pub code: String,
    /// When it was issued.
    pub created_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

impl Ticket {
    /// One ticket for each seat of the order.
    pub fn issue(order: &Order, facts: &Facts, key: &SigningKey, now: Timestamp) -> Vec<Self> {
        let issue = |seat: &SeatLabel| {
            let claims = TicketCode {
                ticket_id: TicketId::new(),
                order_id: order.id,
                show_id: facts.show_id,
                seat: seat.clone(),
            };
            Self {
                code: key.sign(&claims),
                id: claims.ticket_id,
                order_id: order.id,
                show_id: facts.show_id,
                seat: claims.seat,
                created_at: now,
                revoked_at: None,
            }
        };
        facts.seats.iter().map(issue).collect()
    }

    /// Whether it opens the door.
    pub fn state(&self) -> api::TicketState {
        if self.revoked_at.is_none() { api::TicketState::Valid } else { api::TicketState::Revoked }
    }
}

impl From<Ticket> for api::Ticket {
    fn from(ticket: Ticket) -> Self {
        Self {
            ticket_id: ticket.id,
            order_id: ticket.order_id,
            show_id: ticket.show_id,
            state: ticket.state(),
            seat: ticket.seat,
            code: ticket.code,
        }
    }
}
