//! What the provider is asked, and what it decides. Knows neither HTTP nor SQL.

mod decision;
mod request;
mod words;

use stampede_contracts::Timestamp;

pub use decision::{Authorisation, Capture, Decision, authorise, capture, refund, void};
pub use request::Request;
pub use words::{Kind, Status};

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The merchant's key.
    pub key: String,
    /// Its place in the ledger.
    pub seq: i64,
    /// What was asked.
    pub kind: Kind,
    /// What became of it.
    pub status: Status,
    /// Our name for what was done; absent when nothing was.
    pub id: Option<String>,
    /// The authorisation or capture it is about.
    pub about: Option<String>,
    /// How much, in minor units.
    pub amount: Option<i64>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// The merchant's own name for the purchase.
    pub reference: Option<String>,
    /// Why it was declined or refused.
    pub reason: Option<String>,
    /// When it was decided.
    pub at: Timestamp,
}
