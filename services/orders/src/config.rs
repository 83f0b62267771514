//! The environment, as far as only this service reads it.

use std::num::NonZeroU32;
use std::time::Duration;

use stampede_contracts::signed::SigningKey;
use stampede_service::env::{Env, EnvError};
use stampede_service::{Rotating, Secret};

use crate::app::Timing;
use crate::domain::Pauses;

/// The shortest secret for fingerprints, in bytes.
const FINGERPRINT_KEY_MIN: usize = 32;

/// See the README for every key.
#[derive(Debug)]
pub struct Config {
    /// Signs ticket codes; scanners get the public halves of all.
    pub ticket_key: Rotating<SigningKey>,
    /// Makes fingerprints of requests.
    pub fingerprint_key: Rotating<Secret>,
    /// How patient the service is.
    pub timing: Timing,
    /// How long one go at a call to `inventory` may take.
    pub call_timeout: Duration,
    /// Partitions of the outbox.
    pub outbox_partitions: u16,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// [`EnvError`] names the first key that is missing or not valid.
    pub fn from_env(env: &Env) -> Result<Self, EnvError> {
        let ticket_key = env.parse("TICKET_SIGNING_KEY")?;
        let fingerprint_key: Rotating<Secret> = env.parse("FINGERPRINT_KEY")?;
        if fingerprint_key.iter().any(|key| key.expose().len() < FINGERPRINT_KEY_MIN) {
            return Err(EnvError::Invalid {
                key: "FINGERPRINT_KEY".to_owned(),
                expected: "at least 32 bytes".to_owned(),
                reason: "it is too short".to_owned(),
            });
        }
        let sweep_batch = env.parse_or("SWEEP_BATCH", NonZeroU32::MIN.saturating_add(24))?;
        let timing = Timing {
            decide_within: env.millis_or("DECIDE_WITHIN_MS", Duration::from_secs(15 * 60))?,
            retry: Pauses {
                first: env.millis_or("RETRY_AFTER_MS", Duration::from_secs(5))?,
                longest: env.millis_or("RETRY_MAX_MS", Duration::from_secs(60))?,
            },
            mail: Pauses {
                first: env.millis_or("MAIL_AGAIN_AFTER_MS", Duration::from_secs(60))?,
                longest: env.millis_or("MAIL_AGAIN_MAX_MS", Duration::from_secs(60 * 60))?,
            },
            sweep_every: at_least_1_ms(env.millis_or("SWEEP_EVERY_MS", Duration::from_secs(1))?),
            sweep_batch: sweep_batch.get(),
            keys_kept_for: env.millis_or("KEYS_KEPT_FOR_MS", Duration::from_secs(24 * 60 * 60))?,
            refund: Pauses {
                first: env.millis_or("REFUND_AGAIN_AFTER_MS", Duration::from_secs(10 * 60))?,
                longest: env.millis_or("REFUND_AGAIN_MAX_MS", Duration::from_secs(24 * 60 * 60))?,
            },
        };
        Ok(Self {
            ticket_key,
            fingerprint_key,
            timing,
            call_timeout: env.millis_or("CALL_TIMEOUT_MS", Duration::from_secs(4))?,
            outbox_partitions: env.parse_or("OUTBOX_PARTITIONS", 8)?,
        })
    }
}

/// A timer of zero would never rest.
fn at_least_1_ms(duration: Duration) -> Duration {
    duration.max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Config, EnvError> {
        Config::from_env(&Env::from_pairs(pairs.iter().copied()))
    }

    #[test]
    fn two_secrets_are_all_it_needs() {
        let seed = "07".repeat(32);
        let config = config(&[("TICKET_SIGNING_KEY", &seed), ("FINGERPRINT_KEY", &seed)]).unwrap();
        assert_eq!(config.timing.decide_within, Duration::from_secs(900));
        assert_eq!(config.timing.sweep_batch, 25);
    }

    #[test]
    fn a_key_that_is_missing_or_no_key_is_named() {
        let seed = "07".repeat(32);
        let error = |pairs: &[(&str, &str)]| config(pairs).unwrap_err().to_string();
        assert!(error(&[]).starts_with("TICKET_SIGNING_KEY is not set"));
        assert!(error(&[("TICKET_SIGNING_KEY", "x")]).starts_with("TICKET_SIGNING_KEY is not valid"));
        assert!(error(&[("TICKET_SIGNING_KEY", &seed)]).starts_with("FINGERPRINT_KEY is not set"));
        for short in ["short", &format!("{seed},short")] {
            let short = [("TICKET_SIGNING_KEY", seed.as_str()), ("FINGERPRINT_KEY", short)];
            assert!(error(&short).starts_with("FINGERPRINT_KEY is not valid"));
        }
    }
}
