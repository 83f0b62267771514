//! What the lobby can be told.

use std::time::Duration;

use stampede_contracts::signed::{InvalidKey, SigningKey};
use stampede_service::{Env, Identity, env::EnvError};

/// Name of the service: its database, its user, its subjects.
pub const SERVICE: &str = "lobby";
/// Who this is.
pub const IDENTITY: Identity = Identity {
    service: SERVICE,
    version: env!("CARGO_PKG_VERSION"),
    blueprint: include_str!("../blueprint.toml"),
};

/// A buyer who polls every 10 s and is noted every 20 s has to be seen within a third of it, with 10 s to spare. Also the
/// default.
const ABANDONED_AFTER_MIN: Duration = Duration::from_secs(120);

/// What the lobby can be told.
#[derive(Debug)]
pub struct Config {
    /// `PASS_SIGNING_KEY`: seed of the Ed25519 key that signs passes, 64 hexadecimal digits.
    pub pass_key: SigningKey,
    /// `ADMIT_EVERY_MS`: how often people are admitted.
    pub admit_every: Duration,
    /// `ABANDONED_AFTER_MS`: a buyer not seen for this long is skipped.
    pub abandoned_after: Duration,
    /// `HISTORY_KEPT_FOR_DAYS`: how long places stay after their show is over.
    pub history: Duration,
}

/// A key of the environment is missing or wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Missing or not of its type.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// Not a signing key.
    #[error("PASS_SIGNING_KEY: {0}")]
    Key(#[from] InvalidKey),
    /// A buyer who polls on schedule would count as gone.
    #[error("ABANDONED_AFTER_MS must be at least {}", ABANDONED_AFTER_MIN.as_millis())]
    AbandonedTooSoon,
}

impl Config {
    /// From the environment.
    ///
    /// # Errors
    /// Names the key that is missing or wrong.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let abandoned_after = env.millis_or("ABANDONED_AFTER_MS", ABANDONED_AFTER_MIN)?;
        if abandoned_after < ABANDONED_AFTER_MIN {
            return Err(ConfigError::AbandonedTooSoon);
        }
        Ok(Self {
            pass_key: SigningKey::from_seed_hex(env.secret("PASS_SIGNING_KEY")?.expose())?,
            admit_every: env.millis_or("ADMIT_EVERY_MS", Duration::from_millis(100))?,
            abandoned_after,
            history: env.days_or("HISTORY_KEPT_FOR_DAYS", 90)?,
        })
    }
}
