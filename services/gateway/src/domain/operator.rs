//! The operators' tokens: one, or two while it is replaced.

use ring::{hmac, rand::SystemRandom};

/// Verifies the operators' tokens without storing them.
///
/// Both sides are run through HMAC-SHA256 with a key that only this process knows, and the digests are compared in
/// constant time: how long a wrong guess takes says nothing, neither where it goes wrong nor how long the token is.
#[derive(Debug)]
pub struct OperatorToken {
    key: hmac::Key,
    digests: Vec<hmac::Tag>,
}

/// The system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system has no random bytes")]
pub struct NoRandomness;

impl OperatorToken {
    /// Remembers tokens.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn try_new<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Result<Self, NoRandomness> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_unspecified| NoRandomness)?;
        let digests = tokens.into_iter().map(|token| hmac::sign(&key, token.as_bytes())).collect();
        Ok(Self { key, digests })
    }

    /// Whether `presented` is one of the tokens.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.digests.iter().any(|digest| hmac::verify(&self.key, presented, digest.as_ref()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_and_its_successor_match() {
        let token = OperatorToken::try_new(["a-long-operator-token", "its-successor"]).unwrap();
        assert!(token.matches(b"a-long-operator-token") && token.matches(b"its-successor"));
        for wrong in ["", "a-long-operator-toke", "a-long-operator-token ", "A-long-operator-token"] {
            assert!(!token.matches(wrong.as_bytes()), "{wrong}");
        }
    }
}
