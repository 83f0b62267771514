//! The stored answer to placing an order.

/// Status and body, as they go to the client each time the key comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The body, JSON.
    pub body: String,
}
