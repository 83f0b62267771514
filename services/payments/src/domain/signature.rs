//! Whether a webhook comes from the provider, and now.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::hmac;

/// Signatures looked at, at most: a provider that changes its secret sends two for a while.
const SIGNATURES_MAX: usize = 4;

/// The three headers of the standard-webhooks scheme.
/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `Webhook-Id`: names the event; the same however often it is sent.
    pub id: &'a str,
    /// `Webhook-Timestamp`: when it was sent, in Unix seconds.
    pub timestamp: &'a str,
    /// `Webhook-Signature`: `v1,<base64>`, several with blanks between them.
    pub signatures: &'a str,
}

/// Why a webhook is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// No signature of ours fits.
    #[error("the signature does not fit")]
    Forged,
    /// Sent too long ago, or in the future: perhaps recorded and played again.
    #[error("the time of sending is too far from now")]
    Stale,
    /// The time cannot be read.
    #[error("the time of sending cannot be read")]
    Malformed,
}

/// Verifies with the secret that is shared with the provider, or with both while it is replaced.
#[derive(Clone)]
pub struct Verifier {
    keys: Vec<hmac::Key>,
    tolerance: Duration,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("tolerance", &self.tolerance).finish_non_exhaustive()
    }
}

impl Verifier {
    /// `tolerance` is how far the time of sending may be from now, either way.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>, tolerance: Duration) -> Self {
        let key = |secret: &str| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Self { keys: secrets.into_iter().map(key).collect(), tolerance }
    }

    /// Believes a webhook or says why not. The comparison takes as long for every wrong signature.
    ///
    /// # Errors
    /// [`Untrusted`].
    pub fn verify(&self, signed: Signed<'_>, body: &[u8], now_unix_seconds: i64) -> Result<(), Untrusted> {
        let Signed { id, timestamp, signatures } = signed;
        let content = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
        let fits = |signature: &str| {
            signature
                .strip_prefix("v1,")
                .and_then(|encoded| BASE64_STANDARD.decode(encoded).ok())
                .is_some_and(|tag| self.keys.iter().any(|key| hmac::verify(key, &content, &tag).is_ok()))
        };
        if !signatures.split(' ').take(SIGNATURES_MAX).any(fits) {
            return Err(Untrusted::Forged);
        }
        // Only after the signature: a stranger learns nothing about our clock.
        let sent: i64 = timestamp.parse().map_err(|_| Untrusted::Malformed)?;
        let distance = Duration::from_secs(now_unix_seconds.abs_diff(sent));
        if distance > self.tolerance { Err(Untrusted::Stale) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;
    // `printf evt_1.1700000000.{} | openssl dgst -sha256 -hmac secret -binary | base64`
    const SIGNATURE: &str = "v1,gcuLUJYfD9JQ2UlZMDEyUnqjiYF/KVJjsn3HLULsCj4=";

    fn verify(id: &str, timestamp: &str, signatures: &str, body: &str, now: i64) -> Result<(), Untrusted> {
        let signed = Signed { id, timestamp, signatures };
        Verifier::new(["successor", "secret"], Duration::from_secs(300)).verify(signed, body.as_bytes(), now)
    }

    #[test]
    fn the_providers_signature_is_believed_also_beside_another() {
        assert_eq!(verify("evt_1", "1700000000", SIGNATURE, "{}", NOW), Ok(()));
        let two = format!("v1,AAAA {SIGNATURE}");
        assert_eq!(verify("evt_1", "1700000000", &two, "{}", NOW), Ok(()));
    }

    #[test]
    fn whatever_was_changed_is_a_forgery() {
        for (id, timestamp, signature, body) in [
            ("evt_2", "1700000000", SIGNATURE, "{}"),
            ("evt_1", "1700000001", SIGNATURE, "{}"),
            ("evt_1", "1700000000", SIGNATURE, "{ }"),
            ("evt_1", "1700000000", "v1,", "{}"),
            ("evt_1", "1700000000", "", "{}"),
            ("evt_1", "1700000000", &SIGNATURE["v1,".len()..], "{}"),
            ("evt_1", "1700000000", &SIGNATURE.replace("v1", "v2"), "{}"),
        ] {
            assert_eq!(
                verify(id, timestamp, signature, body, NOW),
                Err(Untrusted::Forged),
                "{id} {signature}"
            );
        }
        let many = format!("{}{SIGNATURE}", "v1,AAAA ".repeat(SIGNATURES_MAX));
        assert_eq!(verify("evt_1", "1700000000", &many, "{}", NOW), Err(Untrusted::Forged));
    }

    #[test]
    fn what_was_recorded_is_not_believed_later() {
        assert_eq!(verify("evt_1", "1700000000", SIGNATURE, "{}", NOW + 300), Ok(()));
        assert_eq!(verify("evt_1", "1700000000", SIGNATURE, "{}", NOW + 301), Err(Untrusted::Stale));
        assert_eq!(verify("evt_1", "1700000000", SIGNATURE, "{}", NOW - 301), Err(Untrusted::Stale));
    }
}
