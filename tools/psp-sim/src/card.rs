//! The test cards and the tokens that stand for them.

use uuid::Uuid;

/// What happens to who pays with a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    /// Everything succeeds.
    Works,
    /// Declined: `card_declined`.
    Declined,
    /// Declined: `insufficient_funds`.
    NoFunds,
    /// Authorised, but the connection breaks before the first answer.
    LostReply,
    /// Authorised after five seconds.
    Slow,
    /// Never answered at first; lands after a look-up found nothing.
    Late,
    /// Authorised, but the capture is refused for good.
    NoCapture,
}

impl Card {
    const ALL: [Self; 7] = [
        Self::Works,
        Self::Declined,
        Self::NoFunds,
        Self::LostReply,
        Self::Slow,
        Self::Late,
        Self::NoCapture,
    ];

    /// The word in tokens and in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Declined => "declined",
            Self::NoFunds => "nofunds",
            Self::LostReply => "lostreply",
            Self::Slow => "slow",
            Self::Late => "late",
            Self::NoCapture => "nocapture",
        }
    }

    /// The card of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|card| card.as_str() == word)
    }

    /// The card with this number; only the test cards of `stampede_contracts::api::TEST_CARDS` exist.
    pub fn with_number(number: &str) -> Option<Self> {
        match number {
            "4242424242424242" => Some(Self::Works),
            "4000000000000002" => Some(Self::Declined),
            "4000000000009995" => Some(Self::NoFunds),
            "4000000000000101" => Some(Self::LostReply),
            "4000000000000119" => Some(Self::Slow),
            "4000000000000127" => Some(Self::Late),
            "4000000000000135" => Some(Self::NoCapture),
            _ => None,
        }
    }

    /// A token that stands for this card: `tok_<word>_<32 random hexadecimal digits>`.
    ///
    /// A real provider would keep a table. Here the word in the token is the table, so that making one costs no
    /// transaction and a person who reads a test sees what it pays with.
    pub fn token(self) -> String {
        format!("tok_{}_{}", self.as_str(), Uuid::new_v4().simple())
    }

    /// The card that a token stands for; nothing when it is no token of ours.
    pub fn of_token(token: &str) -> Option<Self> {
        let (word, random) = token.strip_prefix("tok_")?.split_once('_')?;
        let is_random = random.len() == 32 && random.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_random.then(|| Self::from_word(word)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use stampede_contracts::api::TEST_CARDS;

    use super::*;

    #[test]
    fn the_published_cards_are_the_ones_that_exist() {
        let published: Vec<_> = TEST_CARDS.iter().map(|(number, _)| Card::with_number(number)).collect();
        assert_eq!(published, Card::ALL.map(Some));
    }

    #[test]
    fn a_token_stands_for_its_card() {
        for card in Card::ALL {
            assert_eq!(Card::of_token(&card.token()), Some(card));
        }
        assert_ne!(Card::Works.token(), Card::Works.token());
        for wrong in [
            "",
            "tok_",
            "tok_works",
            "tok_works_",
            "tok_works_12",
            "tok_gold_0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(Card::of_token(wrong), None, "{wrong}");
        }
    }
}
