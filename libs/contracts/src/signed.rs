//! Signed claims: `<prefix>.<key id>.<claims>.<signature>`, Ed25519 (RFC 8032), base64url without padding.
//!
//! A pass and a ticket code are such texts. Only the signer has the private key; whoever verifies needs the
//! public one and no network. The prefix is signed too, so a pass is never taken for a ticket.

use std::str::FromStr;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use ring::{
    digest,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{LobbyTicket, OrderId, PassId, SessionId, ShowId, TicketId, Timestamp, inventory::SeatLabel};

/// The key is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an Ed25519 key is 64 hexadecimal digits")]
pub struct InvalidKey;

/// The text was not signed by the key, or not for this use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid signed text")]
pub struct Forged;

/// What can be signed.
pub trait Claims: Serialize + DeserializeOwned {
    /// First part of the text: what it is and in which version.
    const PREFIX: &'static str;
}

/// A lobby's pass: a shopping slot for one session and one show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// The pass.
    pub pass_id: PassId,
    /// The only show it opens.
    pub show_id: ShowId,
    /// The only session that may use it.
    pub session: SessionId,
    /// The place it was given to.
    pub place: LobbyTicket,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Claims for Pass {
    const PREFIX: &'static str = "pass1";
}

/// What a scanner reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketCode {
    /// The ticket.
    pub ticket_id: TicketId,
    /// Its order.
    pub order_id: OrderId,
    /// The show it opens.
    pub show_id: ShowId,
    /// The seat.
    pub seat: SeatLabel,
}

impl Claims for TicketCode {
    const PREFIX: &'static str = "tkt1";
}

/// A private key.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    kid: String,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// From a 32-byte seed in hexadecimal.
    ///
    /// # Errors
    /// When it is not 64 hexadecimal digits.
    pub fn from_seed_hex(hex: &str) -> Result<Self, InvalidKey> {
        let seed = bytes_of_hex(hex).ok_or(InvalidKey)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| InvalidKey)?;
        let kid = key_id(pair.public_key().as_ref());
        Ok(Self { pair, kid })
    }

    /// The key that verifies.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey { public: self.pair.public_key().as_ref().to_vec(), kid: self.kid.clone() }
    }

    /// Signs claims.
    pub fn sign<C: Claims>(&self, claims: &C) -> String {
        // Plain structs of ids and times always have a JSON form.
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let signed = format!("{}.{}.{}", C::PREFIX, self.kid, BASE64.encode(claims));
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", BASE64.encode(signature))
    }
}

impl FromStr for SigningKey {
    type Err = InvalidKey;

    fn from_str(hex: &str) -> Result<Self, InvalidKey> {
        Self::from_seed_hex(hex)
    }
}

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    public: Vec<u8>,
    kid: String,
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("VerifyingKey").field(&self.kid).finish()
    }
}

impl VerifyingKey {
    /// From 32 bytes in hexadecimal.
    ///
    /// # Errors
    /// When it is not 64 hexadecimal digits.
    pub fn from_hex(hex: &str) -> Result<Self, InvalidKey> {
        let public = bytes_of_hex(hex).filter(|bytes| bytes.len() == 32).ok_or(InvalidKey)?;
        let kid = key_id(&public);
        Ok(Self { public, kid })
    }

    /// In hexadecimal.
    pub fn to_hex(&self) -> String {
        self.public.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first eight bytes of the key's SHA-256, in hexadecimal.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key for a JSON Web Key Set.
    pub fn jwk_x(&self) -> String {
        BASE64.encode(&self.public)
    }

    /// Reads claims that were signed by the matching private key. Whether they are still valid is not asked here.
    ///
    /// # Errors
    /// When the text is of another kind, was changed, or was signed by another key.
    pub fn verify<C: Claims>(&self, text: &str) -> Result<C, Forged> {
        let (signed, signature) = text.rsplit_once('.').ok_or(Forged)?;
        let mut parts = signed.split('.');
        let (prefix, kid, claims) = (parts.next(), parts.next(), parts.next());
        if prefix != Some(C::PREFIX) || kid != Some(&self.kid) || parts.next().is_some() {
            return Err(Forged);
        }
        let signature = BASE64.decode(signature).map_err(|_| Forged)?;
        UnparsedPublicKey::new(&ED25519, &self.public)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| Forged)?;
        let claims = BASE64.decode(claims.ok_or(Forged)?).map_err(|_| Forged)?;
        serde_json::from_slice(&claims).map_err(|_| Forged)
    }
}

impl FromStr for VerifyingKey {
    type Err = InvalidKey;

    fn from_str(hex: &str) -> Result<Self, InvalidKey> {
        Self::from_hex(hex)
    }
}

fn key_id(public: &[u8]) -> String {
    digest::digest(&digest::SHA256, public)
        .as_ref()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn bytes_of_hex(hex: &str) -> Option<Vec<u8>> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass() -> Pass {
        Pass {
            pass_id: PassId::new(),
            show_id: ShowId::new(),
            session: SessionId::new(),
            place: LobbyTicket::new(),
            expires_at: Timestamp::now(),
        }
    }

    #[test]
    fn what_was_signed_is_read_back() {
        let key = SigningKey::from_seed_hex(&"07".repeat(32)).unwrap();
        let pass = pass();
        let verifying = VerifyingKey::from_hex(&key.verifying_key().to_hex()).unwrap();
        assert_eq!(verifying.verify::<Pass>(&key.sign(&pass)), Ok(pass));
    }

    #[test]
    fn a_changed_text_another_key_and_another_use_are_forged() {
        let key = SigningKey::from_seed_hex(&"07".repeat(32)).unwrap();
        let text = key.sign(&pass());
        let verifying = key.verifying_key();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(verifying.verify::<Pass>(&changed), Err(Forged), "{changed}");
        }
        let other = SigningKey::from_seed_hex(&"08".repeat(32)).unwrap();
        assert_eq!(other.verifying_key().verify::<Pass>(&text), Err(Forged));
        assert_eq!(verifying.verify::<TicketCode>(&text), Err(Forged));
    }
}
