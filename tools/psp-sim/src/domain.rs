//! What the provider is asked, and what it decides. Knows neither HTTP nor SQL.

use ring::digest::{Context, SHA256};
use stampede_contracts::{Money, Timestamp};

use crate::card::Card;

/// A kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reserve an amount on a card.
    Authorise,
    /// Take what was reserved.
    Capture,
    /// Give a reservation back.
    Void,
    /// Give back what was taken.
    Refund,
    /// The tombstone of a key that was cancelled before anything came under it.
    Cancel,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Authorise, Self::Capture, Self::Void, Self::Refund, Self::Cancel];

    /// The word on the wire and in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorise => "authorise",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
            Self::Cancel => "cancel",
        }
    }

    /// The kind of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// What it is once it was done.
    pub const fn done(self) -> Status {
        match self {
            Self::Authorise => Status::Authorised,
            Self::Capture => Status::Captured,
            Self::Void => Status::Voided,
            Self::Refund => Status::Refunded,
            Self::Cancel => Status::Cancelled,
        }
    }

    /// How the ids of what was done begin.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Authorise => "auth",
            Self::Capture => "cap",
            Self::Void => "void",
            Self::Refund => "ref",
            Self::Cancel => "can",
        }
    }
}

/// What became of an operation. Final, all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The amount is reserved.
    Authorised,
    /// The amount was taken.
    Captured,
    /// The reservation was given back.
    Voided,
    /// The amount was given back.
    Refunded,
    /// The card was declined.
    Declined,
    /// It will not be done.
    Refused,
    /// The key was cancelled; nothing happens under it.
    Cancelled,
}

impl Status {
    const ALL: [Self; 7] = [
        Self::Authorised,
        Self::Captured,
        Self::Voided,
        Self::Refunded,
        Self::Declined,
        Self::Refused,
        Self::Cancelled,
    ];

    /// The word on the wire and in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorised => "authorised",
            Self::Captured => "captured",
            Self::Voided => "voided",
            Self::Refunded => "refunded",
            Self::Declined => "declined",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// What a merchant asks for.
#[derive(Clone, PartialEq, Eq)]
pub enum Request {
    /// Reserve an amount.
    Authorise {
        /// Stands for the card.
        card_token: String,
        /// How much.
        amount: Money,
        /// The merchant's own name for the purchase.
        reference: String,
    },
    /// Take all that an authorisation reserved.
    Capture {
        /// The authorisation.
        authorisation: String,
    },
    /// Give back all that an authorisation reserved.
    Void {
        /// The authorisation.
        authorisation: String,
    },
    /// Give back a part or all of a capture.
    Refund {
        /// The capture.
        capture: String,
        /// How much, in minor units of the capture's currency.
        amount: i64,
    },
}

impl Request {
    /// What kind of operation it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Authorise { .. } => Kind::Authorise,
            Self::Capture { .. } => Kind::Capture,
            Self::Void { .. } => Kind::Void,
            Self::Refund { .. } => Kind::Refund,
        }
    }

    /// The card it is paid with, if there is such a card.
    pub fn card(&self) -> Option<Card> {
        match self {
            Self::Authorise { card_token, .. } => Card::of_token(card_token),
            Self::Capture { .. } | Self::Void { .. } | Self::Refund { .. } => None,
        }
    }

    /// SHA-256 of all of it: the same key with another request is a mistake of the merchant.
    pub fn fingerprint(&self) -> Vec<u8> {
        let mut digest = Context::new(&SHA256);
        let mut add = |part: &str| {
            // The length first, so that two requests never run together into the same bytes.
            digest.update(&part.len().to_be_bytes());
            digest.update(part.as_bytes());
        };
        add(self.kind().as_str());
        match self {
            Self::Authorise { card_token, amount, reference } => {
                [card_token, &amount.amount().to_string(), amount.currency().as_str(), reference]
                    .into_iter()
                    .for_each(add);
            }
            Self::Capture { authorisation } | Self::Void { authorisation } => add(authorisation),
            Self::Refund { capture, amount } => {
                [capture.as_str(), &amount.to_string()].into_iter().for_each(add);
            }
        }
        digest.finish().as_ref().to_vec()
    }
}

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

    #[test]
    fn requests_that_differ_have_other_fingerprints() {
        let refund =
            |capture: &str, amount| Request::Refund { capture: capture.to_owned(), amount }.fingerprint();
        assert_eq!(refund("cap_1", 2), refund("cap_1", 2));
        assert_ne!(refund("cap_1", 2), refund("cap_", 12));
        let (capture, void) =
            (Request::Capture { authorisation: "a".into() }, Request::Void { authorisation: "a".into() });
        assert_ne!(capture.fingerprint(), void.fingerprint());
    }
}
