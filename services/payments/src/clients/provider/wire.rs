//! The provider's JSON.

use serde::{Deserialize, Serialize};
use stampede_contracts::{Currency, OrderId, Timestamp};

use crate::domain::Fate;

/// A page of the provider's ledger.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LedgerPage {
    /// Its rows, oldest first.
    pub operations: Vec<LedgerRow>,
    /// Where the next page begins; absent on the last.
    pub next: Option<i64>,
}

/// A row of the provider's ledger, as far as it concerns us.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LedgerRow {
    /// The key.
    pub key: String,
    /// What was asked: `authorise`, `capture`, `void`, `refund` or `cancel`.
    pub kind: String,
    /// What became of it: `authorised`, `captured`, `voided`, `refunded`, `declined`, `refused` or `cancelled`.
    pub status: String,
    /// The provider's name for it.
    pub id: Option<String>,
    /// Minor units.
    pub amount: Option<i64>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// When it was decided, by the provider's clock.
    pub at: Timestamp,
}

/// The body of an authorisation.
#[derive(Serialize)]
pub(super) struct NewAuthorisation<'a> {
    pub(super) card_token: &'a str,
    pub(super) amount: i64,
    pub(super) currency: Currency,
    pub(super) reference: OrderId,
}

/// The body of a refund.
#[derive(Serialize)]
pub(super) struct NewRefund {
    pub(super) amount: i64,
}

/// The part of an operation's JSON that says what became of it.
#[derive(Deserialize)]
pub(super) struct View {
    pub(super) status: String,
    pub(super) id: Option<String>,
    pub(super) reason: Option<String>,
}

impl View {
    /// What it means, if it is a word we know.
    pub(super) fn fate(self) -> Option<Fate> {
        let Self { status, id, reason } = self;
        match status.as_str() {
            "authorised" | "captured" | "voided" | "refunded" => id.map(|reference| Fate::Done { reference }),
            "declined" => Some(Fate::Declined { reason: reason.unwrap_or(status) }),
            "refused" => Some(Fate::Refused { reason: reason.unwrap_or(status) }),
            "cancelled" => Some(Fate::Cancelled),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(json: &str) -> Option<Fate> {
        serde_json::from_str::<View>(json).unwrap().fate()
    }

    #[test]
    fn only_known_words_settle_something() {
        let done = Fate::Done { reference: "auth_1".to_owned() };
        assert_eq!(fate(r#"{"status":"authorised","id":"auth_1","kind":"authorise"}"#), Some(done));
        let declined = Fate::Declined { reason: "card_declined".to_owned() };
        assert_eq!(fate(r#"{"status":"declined","reason":"card_declined"}"#), Some(declined));
        assert_eq!(fate(r#"{"status":"cancelled"}"#), Some(Fate::Cancelled));
        assert_eq!(fate(r#"{"status":"authorised"}"#), None, "done without a name");
        assert_eq!(fate(r#"{"status":"pending","id":"auth_1"}"#), None);
    }
}
