//! The header `Idempotency-Key`.

use std::fmt;
use std::str::FromStr;

use http::{HeaderMap, HeaderName};

/// The header's name.
pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key.
pub const MAX_CHARS: usize = 255;

/// A client's name for one intended effect: 1 to 255 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

/// A header that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Nothing, or nothing between the quotes.
    #[error("Idempotency-Key is empty")]
    Empty,
    /// More than [`MAX_CHARS`].
    #[error("Idempotency-Key is longer than 255 characters")]
    TooLong,
    /// Neither `"a quoted string"` nor a bare word, or followed by something else.
    #[error("Idempotency-Key must be one quoted string of visible ASCII characters")]
    NotAString,
    /// Two headers, and no way to tell which one is meant.
    #[error("Idempotency-Key was sent more than once")]
    Repeated,
}

impl Key {
    /// Reads the value of the header.
    ///
    /// The draft asks for a String of RFC 9651, `"…"` with `\"` and `\\` as its only escapes. A bare word is taken as
    /// well: the characters of an RFC 9651 Token, but any of them first, because UUIDs begin with digits. Blanks
    /// inside, which a String could hold, and parameters behind it, for which the draft has no meaning, are refused.
    ///
    /// # Errors
    /// [`Malformed`] says which rule was broken.
    pub fn parse(value: &[u8]) -> Result<Self, Malformed> {
        let key = match value.trim_ascii() {
            [] => return Err(Malformed::Empty),
            [b'"', rest @ ..] => unquote(rest)?,
            word if word.iter().all(|byte| is_word(*byte)) => word.iter().copied().map(char::from).collect(),
            _ => return Err(Malformed::NotAString),
        };
        match key.len() {
            0 => Err(Malformed::Empty),
            1..=MAX_CHARS => Ok(Self(key)),
            _ => Err(Malformed::TooLong),
        }
    }

    /// Reads the header of a request, if it has one.
    ///
    /// # Errors
    /// Like [`parse`](Self::parse), and [`Malformed::Repeated`] when there are two.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, Malformed> {
        let mut values = headers.get_all(HEADER).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => Self::parse(value.as_bytes()).map(Some),
            (Some(_), Some(_)) => Err(Malformed::Repeated),
        }
    }

    /// The key without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Key {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::parse(text.as_bytes())
    }
}

/// What follows the opening quote, up to the closing one, which has to be the last character.
fn unquote(rest: &[u8]) -> Result<String, Malformed> {
    let mut key = String::new();
    let mut bytes = rest.iter().copied();
    loop {
        let byte = match bytes.next() {
            Some(b'"') if bytes.len() == 0 => return Ok(key),
            Some(b'\\') => bytes.next().filter(|escaped| matches!(escaped, b'"' | b'\\')),
            plain => plain.filter(|byte| byte.is_ascii_graphic() && *byte != b'"'),
        };
        key.push(char::from(byte.ok_or(Malformed::NotAString)?));
    }
}

/// RFC 9651, 3.3.4: the `tchar` of RFC 9110, colon and slash.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn parse(text: &str) -> Result<String, Malformed> {
        Key::parse(text.as_bytes()).map(|key| key.to_string())
    }

    #[test]
    fn strings_and_bare_words_are_keys() {
        let same = |text: &str| parse(text).unwrap();
        assert_eq!(same(r#""8e03978e-40d5-43e8-bc93-6894a57f9324""#), "8e03978e-40d5-43e8-bc93-6894a57f9324");
        assert_eq!(same("8e03978e-40d5-43e8-bc93-6894a57f9324"), "8e03978e-40d5-43e8-bc93-6894a57f9324");
        assert_eq!(same(r#"  "a;b,c=d"  "#), "a;b,c=d");
        assert_eq!(same(r#""a\"b\\c""#), r#"a"b\c"#);
        assert_eq!(same("*urn:order/7*"), "*urn:order/7*");
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "  ", r#""""#] {
            assert_eq!(parse(text), Err(Malformed::Empty), "{text:?}");
        }
        let wrong = [
            r#"""#,
            r#""a"#,
            r#"a""#,
            r#""a"b""#,
            r#""a";p=1"#,
            r#""a", "b""#,
            "a,b",
            "a;p",
            "a b",
            r#""a b""#,
            r#""a\b""#,
            r#""a\"#,
            r#""a\""#,
            "\"a\tb\"",
            "ä",
            "\"ä\"",
            "a=b",
            "(a)",
        ];
        for text in wrong {
            assert_eq!(parse(text), Err(Malformed::NotAString), "{text:?}");
        }
    }

    #[test]
    fn the_length_is_counted_without_quotes_and_escapes() {
        let long = "x".repeat(MAX_CHARS);
        assert!(parse(&long).is_ok() && parse(&format!("\"{long}\"")).is_ok());
        assert!(parse(&format!("\"{}\"", "\\\"".repeat(MAX_CHARS))).is_ok());
        assert_eq!(parse(&format!("{long}x")), Err(Malformed::TooLong));
        assert_eq!(parse(&format!("\"{long}x\"")), Err(Malformed::TooLong));
    }

    #[test]
    fn a_request_has_one_key_or_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(Key::from_headers(&headers), Ok(None));
        headers.append(HEADER, HeaderValue::from_static("a"));
        assert_eq!(Key::from_headers(&headers), Ok(Some(Key("a".to_owned()))));
        headers.append(HEADER, HeaderValue::from_static("a"));
        assert_eq!(Key::from_headers(&headers), Err(Malformed::Repeated));
    }

    proptest! {
        #[test]
        fn every_visible_key_survives_quoting(key in "[!-~]{1,255}") {
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(parse(&quoted), Ok(key));
        }

        #[test]
        fn whatever_is_taken_is_within_the_rules(value in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(key) = Key::parse(&value) {
                prop_assert!((1..=MAX_CHARS).contains(&key.as_str().len()));
                prop_assert!(key.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
