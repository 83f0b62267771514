//! What comes of a request: pure functions of what the ledger says.

use stampede_contracts::Money;

use super::Status;
use crate::card::Card;

/// An authorisation that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorisation {
    /// How much is reserved, in minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// The merchant's own name for the purchase.
    pub reference: String,
    /// The card.
    pub card: Option<Card>,
    /// How it ended, if it has.
    pub end: Option<Status>,
}

/// A capture that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// How much was taken, in minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// The merchant's own name for the purchase.
    pub reference: String,
    /// How much of it was given back already.
    pub refunded: i64,
}

/// What is to be written into the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Declined or refused, and why; `None`: it succeeds.
    pub refusal: Option<(Status, &'static str)>,
    /// How much it is about.
    pub amount: Option<i64>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// The merchant's own name for the purchase.
    pub reference: Option<String>,
}

impl Decision {
    fn about(amount: i64, currency: &str, reference: &str) -> Self {
        Self {
            refusal: None,
            amount: Some(amount),
            currency: Some(currency.to_owned()),
            reference: Some(reference.to_owned()),
        }
    }

    fn refused(reason: &'static str) -> Self {
        Self::default().refusing(reason)
    }

    fn refusing(self, reason: &'static str) -> Self {
        Self { refusal: Some((Status::Refused, reason)), ..self }
    }
}

/// Whether an amount is reserved on a card.
pub fn authorise(card: Option<Card>, amount: Money, reference: &str) -> Decision {
    let decision = Decision::about(amount.amount(), amount.currency().as_str(), reference);
    let declined = match card {
        None => Some("invalid_card_token"),
        Some(Card::Declined) => Some("card_declined"),
        Some(Card::NoFunds) => Some("insufficient_funds"),
        Some(Card::Works | Card::LostReply | Card::Slow | Card::Late | Card::NoCapture) => None,
    };
    Decision { refusal: declined.map(|reason| (Status::Declined, reason)), ..decision }
}

/// Whether a reservation is taken.
pub fn capture(authorisation: Option<&Authorisation>) -> Decision {
    let Some(authorisation) = authorisation else { return Decision::refused("unknown_authorisation") };
    let decision = Decision::about(authorisation.amount, &authorisation.currency, &authorisation.reference);
    match (authorisation.end, authorisation.card) {
        (Some(end), _) => decision.refusing(ended(end)),
        (None, Some(Card::NoCapture)) => decision.refusing("capture_not_allowed"),
        (None, _) => decision,
    }
}

/// Whether a reservation is given back.
pub fn void(authorisation: Option<&Authorisation>) -> Decision {
    let Some(authorisation) = authorisation else { return Decision::refused("unknown_authorisation") };
    let decision = Decision::about(authorisation.amount, &authorisation.currency, &authorisation.reference);
    match authorisation.end {
        Some(end) => decision.refusing(ended(end)),
        None => decision,
    }
}

/// Whether an amount is given back.
pub fn refund(capture: Option<&Capture>, amount: i64) -> Decision {
    let Some(capture) = capture else { return Decision::refused("unknown_capture") };
    let decision = Decision::about(amount, &capture.currency, &capture.reference);
    if amount > capture.amount - capture.refunded {
        decision.refusing("more_than_captured")
    } else {
        decision
    }
}

fn ended(end: Status) -> &'static str {
    if end == Status::Voided { "already_voided" } else { "already_captured" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorisation(card: Card, end: Option<Status>) -> Authorisation {
        Authorisation {
            amount: 4_500,
            currency: "EUR".to_owned(),
            reference: "ord_1".to_owned(),
            card: Some(card),
            end,
        }
    }

    fn reason(decision: &Decision) -> Option<&'static str> {
        decision.refusal.map(|(_, reason)| reason)
    }

    #[test]
    fn an_authorisation_ends_once() {
        assert_eq!(reason(&capture(Some(&authorisation(Card::Works, None)))), None);
        for end in [Status::Captured, Status::Voided] {
            let ended = authorisation(Card::Works, Some(end));
            assert!(reason(&capture(Some(&ended))).is_some() && reason(&void(Some(&ended))).is_some());
        }
        assert_eq!(reason(&capture(None)), Some("unknown_authorisation"));
    }

    #[test]
    fn a_card_whose_capture_is_refused_can_still_be_voided() {
        let authorised = authorisation(Card::NoCapture, None);
        assert_eq!(reason(&capture(Some(&authorised))), Some("capture_not_allowed"));
        assert_eq!(reason(&void(Some(&authorised))), None);
    }

    #[test]
    fn no_more_is_given_back_than_was_taken() {
        let capture =
            Capture { amount: 100, currency: "EUR".to_owned(), reference: "ord_1".to_owned(), refunded: 60 };
        assert_eq!(reason(&refund(Some(&capture), 40)), None);
        assert_eq!(reason(&refund(Some(&capture), 41)), Some("more_than_captured"));
        assert_eq!(reason(&refund(None, 1)), Some("unknown_capture"));
    }
}
