//! What a merchant asks for.

use ring::digest::{Context, SHA256};
use stampede_contracts::Money;

use super::Kind;
use crate::card::Card;

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

#[cfg(test)]
mod tests {
    use super::*;

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
