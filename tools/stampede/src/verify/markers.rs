//! The values that must not leak, and the search for them: a hundred thousand addresses and secrets in a gigabyte of
//! text.
//!
//! The text is cut into words. Each value is found by its first word, which leads to the few lengths of the values that
//! begin with it; whether one of them stands there is a look into a set. The cost is that of the text alone.

use std::collections::{HashMap, HashSet};

use stampede_contracts::OrderId;

/// Shorter ones are too likely to be something else.
const LENGTH_MIN: usize = 6;
/// A name is looked for only when it is unlikely to be anything else: so long, and two words.
const NAME_LENGTH_MIN: usize = 8;
/// Random digits at the end of a card token of psp-sim.
const TOKEN_DIGITS: usize = 32;

/// What kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Card,
    Email,
    Name,
    Secret,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Card => "a card token",
            Self::Email => "the e-mail address",
            Self::Name => "the buyer's name",
            Self::Secret => "the secret",
        }
    }
}

/// A value that was found, and the order it belongs to if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) kind: Kind,
    pub(super) order: Option<OrderId>,
}

/// The values to look for.
#[derive(Debug, Default)]
pub(super) struct Markers {
    values: HashMap<Box<[u8]>, Marker>,
    /// First word of a value → lengths of the values that begin with it.
    lengths: HashMap<Box<[u8]>, HashSet<usize>>,
}

impl Markers {
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn add(&mut self, kind: Kind, order: OrderId, value: &str) {
        let value = value.trim_start_matches(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric()).trim_end();
        let is_telling = match kind {
            Kind::Name => value.len() >= NAME_LENGTH_MIN && value.contains(' '),
            Kind::Card | Kind::Email | Kind::Secret => value.len() >= LENGTH_MIN,
        };
        if !is_telling {
            return;
        }
        let value = value.as_bytes();
        self.lengths.entry(value[..word_len(value)].into()).or_default().insert(value.len());
        self.values.entry(value.into()).or_insert(Marker { kind, order: Some(order) });
    }

    /// Calls `found` for every value in `text`.
    pub(super) fn find(&self, text: &[u8], mut found: impl FnMut(Marker)) {
        let mut rest = text;
        while let Some(begin) = rest.iter().position(|byte| is_of_word(*byte)) {
            rest = &rest[begin..];
            let word = word_len(rest);
            if let Some(marker) = self.starting(rest, word) {
                found(marker);
            }
            rest = &rest[word..];
        }
    }

    /// The value that begins here, if there is one. Any card token counts, even if no order knows it any more.
    fn starting(&self, text: &[u8], word: usize) -> Option<Marker> {
        if is_card_token(text) {
            return Some(Marker { kind: Kind::Card, order: None });
        }
        let lengths = self.lengths.get(&text[..word])?;
        lengths.iter().find_map(|length| {
            let value = text.get(..*length)?;
            let ends = text.get(*length).is_none_or(|next| !is_of_word(*next));
            self.values.get(value).filter(|_| ends).copied()
        })
    }
}

/// `tok_<word>_<32 hexadecimal digits>`
fn is_card_token(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(b"tok_") else { return false };
    let word = rest.iter().take_while(|byte| byte.is_ascii_lowercase()).count();
    let Some(digits) = rest[word..].strip_prefix(b"_") else { return false };
    word > 0
        && digits.iter().take(TOKEN_DIGITS).filter(|byte| byte.is_ascii_hexdigit()).count() == TOKEN_DIGITS
}

fn word_len(text: &[u8]) -> usize {
    text.iter().position(|byte| !is_of_word(*byte)).unwrap_or(text.len())
}

/// Letters of other alphabets are never cut.
fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(markers: &Markers, text: &str) -> Vec<Kind> {
        let mut kinds = Vec::new();
        markers.find(text.as_bytes(), |marker| kinds.push(marker.kind));
        kinds
    }

    fn markers() -> Markers {
        let order = OrderId::new();
        let mut markers = Markers::default();
        for number in 0..200 {
            markers.add(Kind::Email, order, &format!("buyer-{number}@load.example"));
        }
        markers.add(Kind::Email, order, "zoë+tickets@exämple.org");
        markers.add(Kind::Secret, order, &"ab".repeat(32));
        markers.add(Kind::Name, order, "Ada Lovelace");
        markers.add(Kind::Name, order, "Adalbert");
        markers
    }

    #[test]
    fn a_value_is_found_wherever_it_stands() {
        let markers = markers();
        let secret = "ab".repeat(32);
        for (text, kind) in [
            ("buyer-17@load.example", Kind::Email),
            (r#"{"to":"Buyer <buyer-199@load.example>"}"#, Kind::Email),
            ("mail to zoë+tickets@exämple.org failed", Kind::Email),
            ("hello Ada Lovelace, you", Kind::Name),
            (&format!("https://x/#{secret}"), Kind::Secret),
        ] {
            assert_eq!(kinds(&markers, text), [kind], "{text}");
        }
    }

    #[test]
    fn a_part_of_something_longer_is_something_else() {
        let markers = markers();
        let longer = "ab".repeat(33);
        for text in [
            "buyer-1700@load.example",
            "buyer-17@load.examples",
            "xbuyer-17@load.example",
            "Ada",
            &longer,
            "Adalbert",
        ] {
            assert!(kinds(&markers, text).is_empty(), "{text}");
        }
    }

    #[test]
    fn every_card_token_is_one_too_many() {
        let markers = Markers::default();
        let digits = "0f".repeat(16);
        assert_eq!(kinds(&markers, &format!("token=tok_works_{digits}&x")), [Kind::Card]);
        for text in ["tok_works", "tok__0f", &format!("tok_{digits}"), &format!("atok_works_{digits}")] {
            assert!(kinds(&markers, text).is_empty(), "{text}");
        }
    }
}
