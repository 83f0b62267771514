//! Secrets of one platform: made at its first `up`, kept in `<state>/secrets`, one file a secret, mode 0600.
//!
//! Files and not one document, so that a person can `cat .stampede/secrets/operator-token`, and so that a secret
//! that a newer version needs is simply made when it is first asked for.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::state::StateDir;

/// Bytes in a key or password, before it is written as hexadecimal.
const KEY_BYTES: usize = 32;

/// The folder of secrets.
#[derive(Clone, Debug)]
pub struct Secrets {
    folder: PathBuf,
}

impl Secrets {
    /// Opens the secrets of a platform, making the folder when it is missing.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(state: &StateDir) -> anyhow::Result<Self> {
        let folder = state.secrets();
        StateDir::private_folder(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// The password of a NATS user.
    ///
    /// # Errors
    /// When the secret can neither be read nor made; so for all functions here.
    pub fn nats_password(&self, user: &str) -> anyhow::Result<String> {
        self.key(&format!("nats-{user}"))
    }

    /// The password of a role in Postgres; the superuser is `postgres`.
    ///
    /// # Errors
    /// See [`Secrets::nats_password`].
    pub fn postgres_password(&self, role: &str) -> anyhow::Result<String> {
        self.key(&format!("postgres-{role}"))
    }

    /// What an operator shows at `/v1/ops/…`.
    ///
    /// # Errors
    /// See [`Secrets::nats_password`].
    pub fn operator_token(&self) -> anyhow::Result<String> {
        self.key("operator-token")
    }

    /// What a command shows to the `up` it talks to.
    pub(crate) fn control_token(&self) -> anyhow::Result<String> {
        self.key("control-token")
    }

    /// The key that signs the tokens of buyers' sessions.
    pub(crate) fn session_key(&self) -> anyhow::Result<String> {
        self.key("session-key")
    }

    /// The key of the fingerprints that tell whether two requests are the same.
    pub(crate) fn fingerprint_key(&self) -> anyhow::Result<String> {
        self.key("fingerprint-key")
    }

    /// What signs the provider's webhooks.
    pub(crate) fn webhook_secret(&self) -> anyhow::Result<String> {
        self.key("webhook-secret")
    }

    /// What `payments` shows to the provider.
    pub(crate) fn psp_api_key(&self) -> anyhow::Result<String> {
        self.key("psp-api-key")
    }

    /// Signs ticket codes.
    pub(crate) fn ticket_signing_key(&self) -> anyhow::Result<SigningKey> {
        self.signing_key("ticket-signing-key")
    }

    /// Signs passes of the lobby.
    pub(crate) fn pass_signing_key(&self) -> anyhow::Result<SigningKey> {
        self.signing_key("pass-signing-key")
    }

    fn signing_key(&self, name: &str) -> anyhow::Result<SigningKey> {
        SigningKey::from_seed(self.key(name)?).with_context(|| format!("secret {name} is damaged"))
    }

    /// Reads a secret, or makes it.
    fn key(&self, name: &str) -> anyhow::Result<String> {
        let path = self.folder.join(name);
        if let Some(found) = read(&path).with_context(|| format!("cannot read secret {}", path.display()))? {
            return Ok(found);
        }
        let made = hex(&rand::random::<[u8; KEY_BYTES]>());
        write_new(&path, &made).with_context(|| format!("cannot write secret {}", path.display()))?;
        Ok(made)
    }
}

/// An Ed25519 key (RFC 8032), both halves as 32 bytes in hexadecimal.
#[derive(Clone, Debug)]
pub(crate) struct SigningKey {
    pub(crate) seed: String,
    pub(crate) public: String,
}

impl SigningKey {
    fn from_seed(seed: String) -> anyhow::Result<Self> {
        let bytes = unhex(&seed).context("not hexadecimal")?;
        ensure!(bytes.len() == KEY_BYTES, "{} bytes instead of {KEY_BYTES}", bytes.len());
        let pair = Ed25519KeyPair::from_seed_unchecked(&bytes)
            .map_err(|error| anyhow!("not an Ed25519 seed: {error}"))?;
        Ok(Self { seed, public: hex(pair.public_key().as_ref()) })
    }
}

/// Of keys that are accepted together while one is replaced, the one in use.
///
/// # Errors
/// Never.
pub(crate) fn current(keys: &str) -> Result<String, Infallible> {
    Ok(keys.split(',').next().unwrap_or_default().trim().to_owned())
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes beside and renames, so that a crash leaves the whole secret or none.
fn write_new(path: &Path, secret: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    writeln!(file, "{secret}")?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok())).collect();
    let digits = digits?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::scratch::Scratch;

    fn secrets(scratch: &Scratch) -> Secrets {
        Secrets::open(&StateDir::create(scratch.path()).unwrap()).unwrap()
    }

    #[test]
    fn a_secret_is_made_once_and_is_private() {
        let scratch = Scratch::new("secrets").unwrap();
        let first = secrets(&scratch).operator_token().unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(secrets(&scratch).operator_token().unwrap(), first);
        assert_ne!(secrets(&scratch).session_key().unwrap(), first);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&scratch.path().join("secrets")), 0o700);
        assert_eq!(mode(&scratch.path().join("secrets/operator-token")), 0o600);
    }

    #[test]
    fn the_public_half_belongs_to_the_seed() {
        // RFC 8032, section 7.1, test 1.
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let key = SigningKey::from_seed(seed.to_owned()).unwrap();
        assert_eq!(key.public, "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    }

    #[test]
    fn a_damaged_key_is_refused() {
        assert!(SigningKey::from_seed("9d61".to_owned()).is_err());
        assert!(SigningKey::from_seed("x".repeat(64)).is_err());
        assert_eq!(unhex("abc"), None);
        assert_eq!(unhex("ab0C"), Some(vec![0xab, 0x0c]));
    }
}
