//! What `orders` offers over request-reply: personal data that never lies in a stream.

use serde::{Deserialize, Serialize};

use crate::{OrderId, api, function::function};

/// Which order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfOrder {
    /// The order.
    pub order_id: OrderId,
}

/// The card token, while the authorisation needs it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardOf {
    /// `None` once the authorisation has an outcome or the order ended.
    pub card_token: Option<String>,
}

impl std::fmt::Debug for CardOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CardOf").field("card_token", &self.card_token.as_ref().map(|_| "…")).finish()
    }
}

/// What a mail needs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuyerOf {
    /// Name of the buyer.
    pub name: String,
    /// Address.
    pub email: String,
    /// Title of the show.
    pub show_title: String,
    /// Name of the venue.
    pub venue: String,
    /// When it starts.
    pub starts_at: crate::Timestamp,
    /// What was paid.
    pub total: crate::Money,
    /// The secret that reads the order without its session.
    pub order_secret: String,
    /// The tickets with their codes.
    pub tickets: Vec<api::Ticket>,
}

impl std::fmt::Debug for BuyerOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuyerOf").field("tickets", &self.tickets.len()).finish_non_exhaustive()
    }
}

function!(
    /// `rpc.orders.card`, for `payments` only. `order_not_found`.
    Card, "orders", "card", Safe, Pay, 2_000, OfOrder => CardOf
);
function!(
    /// `rpc.orders.buyer`, for `notify` only. `order_not_found`.
    Buyer, "orders", "buyer", Safe, Pay, 2_000, OfOrder => BuyerOf
);
