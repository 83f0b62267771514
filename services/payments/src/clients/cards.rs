//! Card tokens: fetched for one call, never stored and never logged.

use stampede_bus::{Bus, CallError};
use stampede_contracts::orders::{Card, CardOf, OfOrder};
use stampede_contracts::{Function, OrderId};
use stampede_deadline::Deadline;

use super::Unclear;

const SUBJECT: &str = "rpc.orders.card";

/// A card token. Without `Debug`, so that no log line can contain it.
pub struct CardToken(String);

impl CardToken {
    /// The token itself, for the provider only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Asks `orders` for card tokens.
#[derive(Debug, Clone)]
pub struct Cards {
    bus: Bus,
}

impl Cards {
    /// Asks over this connection.
    pub const fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// The token that pays for an order; nothing when it is gone for good: the authorisation has an outcome, the
    /// order ended, or there is no such order.
    ///
    /// # Errors
    /// [`Unclear`] when `orders` cannot say now.
    pub async fn token(&self, order: OrderId) -> Result<Option<CardToken>, Unclear> {
        let request = OfOrder { order_id: order };
        let asking = self.bus.call::<Card>(SUBJECT.to_owned(), &request);
        match stampede_deadline::scope(Deadline::after(Card::DEADLINE), asking).await {
            Ok(CardOf { card_token }) => Ok(card_token.map(CardToken)),
            Err(CallError::Refused(_)) => Ok(None),
            Err(error) => Err(Unclear::NoCard(error)),
        }
    }
}
