//! What the environment says. Nothing else in this crate reads it.

use std::time::Duration;

use stampede_contracts::signed::VerifyingKey;
use stampede_service::env::EnvError;
use stampede_service::{Env, Rotating};

/// Rules that an operator may set.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a hold lasts when no order comes.
    pub hold: Duration,
    /// The most seats of one hold.
    pub seats_max: u32,
    /// The key that verifies the lobby's passes.
    pub pass_key: Rotating<VerifyingKey>,
    /// How long holds and journal of a show stay after it is over.
    pub history: Duration,
    /// How often blocks and layouts are published again although nothing changed.
    pub state_again_every: Duration,
    /// Requests that are handled at the same time.
    pub workers: usize,
    /// Requests that may wait for a worker; the next one is answered `busy`.
    pub queue: usize,
}

impl Config {
    /// Reads the keys listed in the README.
    ///
    /// # Errors
    /// [`EnvError`] names the first key that is missing or cannot be read.
    pub fn from_env(env: &Env) -> Result<Self, EnvError> {
        Ok(Self {
            hold: Duration::from_secs(env.parse_or("HOLD_SECONDS", 300)?),
            seats_max: env.parse_or("HOLD_SEATS_MAX", 8)?,
            pass_key: env.parse("PASS_PUBLIC_KEY")?,
            history: env.days_or("HISTORY_KEPT_FOR_DAYS", 90)?,
            state_again_every: env.millis_or("STATE_AGAIN_EVERY_MS", Duration::from_secs(600))?,
            workers: env.parse_or("RPC_WORKERS", 32)?,
            queue: env.parse_or("RPC_QUEUE", 1_024)?,
        })
    }
}
