//! The operators' token.

use ring::{hmac, rand::SystemRandom};

/// Knows the operators' token without keeping it.
///
/// Both sides are run through HMAC-SHA256 with a key that only this process knows, and the digests are compared in
/// constant time: how long a wrong guess takes says nothing, neither where it goes wrong nor how long the token is.
#[derive(Debug)]
pub struct OperatorToken {
    key: hmac::Key,
    digest: hmac::Tag,
}

/// The system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system has no random bytes")]
pub struct NoRandomness;

impl OperatorToken {
    /// Remembers a token.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn try_new(token: &str) -> Result<Self, NoRandomness> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_unspecified| NoRandomness)?;
        let digest = hmac::sign(&key, token.as_bytes());
        Ok(Self { key, digest })
    }

    /// Whether `presented` is the token.
    pub fn matches(&self, presented: &[u8]) -> bool {
        hmac::verify(&self.key, presented, self.digest.as_ref()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_matches() {
        let token = OperatorToken::try_new("a-long-operator-token").unwrap();
        assert!(token.matches(b"a-long-operator-token"));
        for wrong in ["", "a-long-operator-toke", "a-long-operator-token ", "A-long-operator-token"] {
            assert!(!token.matches(wrong.as_bytes()), "{wrong}");
        }
    }
}
