//! Whether two requests are the same, without keeping them.

use ring::hmac;

/// What is kept of a request: HMAC-SHA-256 over its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The bytes, for a `bytea` column.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Back from a column; none when it does not hold 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Makes fingerprints with one secret. All replicas of a service need the same, for as long as keys are kept.
#[derive(Clone, Debug)]
pub struct Fingerprinter(hmac::Key);

impl Fingerprinter {
    /// `secret` should be 32 random bytes or more.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The fingerprint of a request's parts in this order, such as path and body. The length of each part goes in
    /// before it, so that nothing can move from one part into the next unnoticed.
    pub fn fingerprint(&self, parts: &[&[u8]]) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let tag = context.sign();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(tag.as_ref());
        Fingerprint(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn it_is_the_hmac_of_length_prefixed_parts() {
        let message = [&8_u64.to_be_bytes()[..], b"Hi There"].concat();
        let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[0x0b; 20]), &message);
        let fingerprint = Fingerprinter::new(&[0x0b; 20]).fingerprint(&[b"Hi There"]);
        assert_eq!(fingerprint.as_bytes(), expected.as_ref());
    }

    #[test]
    fn the_secret_matters() {
        let parts: &[&[u8]] = &[b"body"];
        assert_ne!(Fingerprinter::new(b"a").fingerprint(parts), Fingerprinter::new(b"b").fingerprint(parts));
    }

    #[test]
    fn it_survives_a_column() {
        let fingerprint = Fingerprinter::new(b"a").fingerprint(&[]);
        assert_eq!(Fingerprint::from_slice(fingerprint.as_bytes()), Some(fingerprint));
        assert_eq!(Fingerprint::from_slice(&[0; 31]), None);
    }

    proptest! {
        #[test]
        fn equal_only_when_all_parts_are(
            one in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3), 0..4),
            two in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3), 0..4),
        ) {
            let fingerprint = |parts: &[Vec<u8>]| {
                let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                Fingerprinter::new(b"secret").fingerprint(&parts)
            };
            prop_assert_eq!(one == two, fingerprint(&one) == fingerprint(&two));
        }
    }
}
