//! Session tokens: `stp1.<claims>.<mac>`.
//!
//! The claims are 24 bytes, the session's UUID and the second since 1970 in which the token ends; the MAC is
//! HMAC-SHA256 (RFC 2104) over everything before the last dot, prefix included, so that no other text signed with the
//! same key is ever a token. Both parts are base64url without padding. Nothing is stored: whoever has the key verifies.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use ring::hmac;
use stampede_contracts::{SessionId, Timestamp};
use stampede_service::Rotating;
use uuid::Uuid;

const PREFIX: &str = "stp1";
const CLAIMS_BYTES: usize = 24;

/// Makes and verifies tokens.
#[derive(Debug)]
pub struct SessionTokens {
    key: Rotating<hmac::Key>,
    ttl: Duration,
}

/// A new session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// What the client sends from now on.
    pub token: String,
    /// When that ends.
    pub expires_at: Timestamp,
}

/// The text proves no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Not made here, or changed.
    #[error("the token is not valid")]
    Forged,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
}

impl SessionTokens {
    /// Tokens signed with the current key, valid for `ttl`; those signed with another one are valid too.
    pub fn new(key: Rotating<[u8; 32]>, ttl: Duration) -> Self {
        Self { key: key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)), ttl }
    }

    /// A token for the session `id`.
    pub fn issue(&self, id: SessionId, now: Timestamp) -> NewSession {
        // Tokens end at whole seconds; a fraction is given away.
        let expires = (now + self.ttl).unix_millis() / 1_000;
        let mut claims = [0; CLAIMS_BYTES];
        claims[..16].copy_from_slice(id.uuid().as_bytes());
        claims[16..].copy_from_slice(&expires.to_be_bytes());
        let signed = format!("{PREFIX}.{}", BASE64.encode(claims));
        let mac = hmac::sign(&self.key.current, signed.as_bytes());
        let token = format!("{signed}.{}", BASE64.encode(mac));
        let expires_at = Timestamp::from_unix_millis(expires * 1_000).unwrap_or(now);
        NewSession { id, token, expires_at }
    }

    /// The session that `token` proves.
    ///
    /// # Errors
    /// [`InvalidToken`]; the comparison takes the same time wherever the first wrong byte is.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<SessionId, InvalidToken> {
        let (signed, mac) = token.rsplit_once('.').ok_or(InvalidToken::Forged)?;
        let mac = BASE64.decode(mac).map_err(|_| InvalidToken::Forged)?;
        let fits = |key| hmac::verify(key, signed.as_bytes(), &mac).is_ok();
        if !self.key.iter().any(fits) {
            return Err(InvalidToken::Forged);
        }
        let (id, expires) = read_claims(signed).ok_or(InvalidToken::Forged)?;
        if now.unix_millis() / 1_000 >= expires { Err(InvalidToken::Expired) } else { Ok(id) }
    }
}

fn read_claims(signed: &str) -> Option<(SessionId, i64)> {
    let claims = BASE64.decode(signed.strip_prefix(PREFIX)?.strip_prefix('.')?).ok()?;
    let (id, expires) = claims.split_at_checked(16)?;
    let id = SessionId::from_uuid(Uuid::from_slice(id).ok()?);
    Some((id, i64::from_be_bytes(expires.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn tokens() -> SessionTokens {
        SessionTokens::new([7; 32].into(), DAY)
    }

    #[test]
    fn a_token_proves_its_session_until_it_ends() {
        let now = Timestamp::now();
        let id = SessionId::new();
        let session = tokens().issue(id, now);
        assert_eq!(tokens().verify(&session.token, now), Ok(id));
        let end = session.expires_at;
        assert!(end.since(now) > DAY - Duration::from_secs(1) && end.since(now) <= DAY);
        assert_eq!(tokens().verify(&session.token, end - Duration::from_millis(1)), Ok(id));
        assert_eq!(tokens().verify(&session.token, end), Err(InvalidToken::Expired));
    }

    #[test]
    fn any_changed_character_and_any_other_key_is_forged() {
        let now = Timestamp::now();
        let token = tokens().issue(SessionId::new(), now).token;
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(tokens().verify(&changed, now), Err(InvalidToken::Forged), "{changed}");
        }
        let other = SessionTokens::new([8; 32].into(), DAY);
        assert_eq!(other.verify(&token, now), Err(InvalidToken::Forged));
    }

    #[test]
    fn a_session_outlives_the_key_of_its_token_until_that_key_is_taken_away() {
        let now = Timestamp::now();
        let session = tokens().issue(SessionId::new(), now);
        let both = SessionTokens::new(Rotating { current: [8; 32], others: vec![[7; 32]] }, DAY);
        assert_eq!(both.verify(&session.token, now), Ok(session.id));
        let successor = SessionTokens::new([8; 32].into(), DAY);
        assert!(
            successor.verify(&both.issue(session.id, now).token, now).is_ok(),
            "signed with the current one"
        );
        assert_eq!(successor.verify(&session.token, now), Err(InvalidToken::Forged));
    }

    #[test]
    fn what_is_no_token_is_forged() {
        let signed_garbage = {
            let mac = hmac::sign(&tokens().key.current, b"stp1.AAAA");
            format!("stp1.AAAA.{}", BASE64.encode(mac))
        };
        for text in ["", ".", "..", "stp1", "stp1..", "stp1.AAAA.", "ses_1", "\u{202e}", &signed_garbage] {
            assert_eq!(tokens().verify(text, Timestamp::now()), Err(InvalidToken::Forged), "{text:?}");
        }
    }
}
