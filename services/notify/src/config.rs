//! What notify can be told.

use std::time::Duration;

use stampede_service::{Env, Identity, Secret, env::EnvError};

/// Name of the service: its database, its user, its subjects.
pub const SERVICE: &str = "notify";
/// Who this is.
pub const IDENTITY: Identity = Identity {
    service: SERVICE,
    version: env!("CARGO_PKG_VERSION"),
    blueprint: include_str!("../blueprint.toml"),
};
/// Partitions of its outbox.
pub const OUTBOX_PARTITIONS: u16 = 4;

/// What notify can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// `SMTP_URL`: the mail server, `smtp://` or `smtps://`, with user and password if it wants them.
    pub smtp_url: Secret,
    /// `MAIL_FROM`: the sender's address.
    pub mail_from: String,
    /// `MAIL_CONCURRENCY`: mails under way at once; also connections to the mail server, at most.
    pub concurrency: u32,
    /// `MAIL_ATTEMPTS_MAX`: attempts before a mail becomes a dead letter.
    pub attempts_max: i32,
    /// `MAIL_TIMEOUT_MS`: how long one attempt may take.
    pub timeout: Duration,
}

impl Config {
    /// From the environment.
    ///
    /// # Errors
    /// Names the key that is missing or wrong.
    pub fn from_env(env: &Env) -> Result<Self, EnvError> {
        Ok(Self {
            smtp_url: env.optional_secret("SMTP_URL").unwrap_or_else(|| Secret::new("smtp://127.0.0.1:1025")),
            mail_from: env.string_or("MAIL_FROM", "Stampede <tickets@stampede.example>"),
            concurrency: env.parse_or("MAIL_CONCURRENCY", 8)?,
            // With the longest pause of ten minutes, about two days.
            attempts_max: env.parse_or("MAIL_ATTEMPTS_MAX", 300)?,
            timeout: env.millis_or("MAIL_TIMEOUT_MS", Duration::from_secs(10))?,
        })
    }
}
