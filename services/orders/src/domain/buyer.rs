//! Who buys and with what: checked at the door, and never printed.

use std::fmt;

const NAME_MAX_CHARS: usize = 200;
/// RFC 5321, 4.5.3.1: what fits between the angle brackets of a path.
const EMAIL_MAX_BYTES: usize = 254;
const LOCAL_PART_MAX_BYTES: usize = 64;
const DOMAIN_LABEL_MAX_BYTES: usize = 63;
const CARD_TOKEN_MAX_BYTES: usize = 200;

/// A field that breaks its rule. Names the field and the rule, never the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInput {
    /// The name.
    #[error("buyer.name must have 1 to 200 characters, none of them a control character")]
    Name,
    /// The address.
    #[error("buyer.email must be an e-mail address such as ada@example.org, at most 254 bytes long")]
    Email,
    /// The card token.
    #[error("payment.card_token must have 1 to 200 visible ASCII characters")]
    CardToken,
}

/// Who buys.
#[derive(Clone, PartialEq, Eq)]
pub struct Buyer {
    name: String,
    email: String,
}

impl Buyer {
    /// A buyer. Blanks around both are cut off.
    ///
    /// # Errors
    /// [`InvalidInput`] names the field.
    pub fn try_new(name: &str, email: &str) -> Result<Self, InvalidInput> {
        let (name, email) = (name.trim(), email.trim());
        if !(1..=NAME_MAX_CHARS).contains(&name.chars().count()) || name.chars().any(char::is_control) {
            return Err(InvalidInput::Name);
        }
        if !is_address(email) {
            return Err(InvalidInput::Email);
        }
        Ok(Self { name: name.to_owned(), email: email.to_owned() })
    }

    /// The name on the tickets.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where mail goes.
    pub fn email(&self) -> &str {
        &self.email
    }
}

impl fmt::Debug for Buyer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Buyer(…)")
    }
}

/// A token from the payment provider that stands for a card.
#[derive(Clone, PartialEq, Eq)]
pub struct CardToken(String);

impl CardToken {
    /// A token.
    ///
    /// # Errors
    /// [`InvalidInput::CardToken`].
    pub fn try_new(token: &str) -> Result<Self, InvalidInput> {
        let fits = (1..=CARD_TOKEN_MAX_BYTES).contains(&token.len());
        let visible = token.bytes().all(|byte| byte.is_ascii_graphic());
        (fits && visible).then(|| Self(token.to_owned())).ok_or(InvalidInput::CardToken)
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CardToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CardToken(…)")
    }
}

/// Catches slips and everything that could break a mail header. Whether the mailbox exists only a mail can tell, so
/// rare forms such as quoted local parts are refused rather than understood.
fn is_address(email: &str) -> bool {
    let Some((local, domain)) = email.split_once('@') else { return false };
    email.len() <= EMAIL_MAX_BYTES && is_local_part(local) && is_domain(domain)
}

fn is_local_part(local: &str) -> bool {
    // RFC 5322, 3.2.3: a dot-atom; RFC 6531 adds everything beyond ASCII.
    let is_atom = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    local.len() <= LOCAL_PART_MAX_BYTES
        && local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom))
}

fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        (1..=DOMAIN_LABEL_MAX_BYTES).contains(&label.len())
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    domain.contains('.') && domain.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sensible_buyers_pass() {
        for email in ["ada@example.org", "a.b+c@mail.example.co.uk", "grüße@bücher.example", "o'neil@x-y.ie"]
        {
            assert!(Buyer::try_new("Ada Lovelace", email).is_ok(), "{email}");
        }
        assert_eq!(Buyer::try_new("  Ada ", " ada@example.org ").unwrap().name(), "Ada");
    }

    #[test]
    fn what_could_not_be_an_address_or_would_break_a_mail_is_refused() {
        for email in [
            "",
            "ada",
            "@example.org",
            "ada@",
            "ada@example",
            "ada@@example.org",
            "a b@example.org",
            "ada@exa mple.org",
            "ada@example.org\r\nBcc: x@example.org",
            "ada@-example.org",
            "ada@example..org",
            ".ada@example.org",
            "<ada@example.org>",
            "ada@example.org,eve@example.org",
            &format!("{}@example.org", "a".repeat(65)),
            &format!("a@{}.org", "b.".repeat(130)),
        ] {
            assert_eq!(Buyer::try_new("Ada", email), Err(InvalidInput::Email), "{email}");
        }
    }

    #[test]
    fn a_name_is_one_line() {
        for name in ["", "   ", "Ada\nLovelace", "Ada\u{0}", &"x".repeat(201)] {
            assert_eq!(Buyer::try_new(name, "ada@example.org"), Err(InvalidInput::Name), "{name:?}");
        }
    }

    #[test]
    fn a_token_is_visible_ascii() {
        assert!(CardToken::try_new("tok_4242").is_ok());
        for token in ["", "tok 1", "tok\n", "tök", &"x".repeat(201)] {
            assert_eq!(CardToken::try_new(token), Err(InvalidInput::CardToken), "{token:?}");
        }
    }

    #[test]
    fn neither_is_ever_printed() {
        let buyer = Buyer::try_new("Ada", "ada@example.org").unwrap();
        let token = CardToken::try_new("tok_4242").unwrap();
        let printed = format!("{buyer:?} {token:?}");
        assert!(
            !printed.contains("ada") && !printed.contains("Ada") && !printed.contains("4242"),
            "{printed}"
        );
    }
}
