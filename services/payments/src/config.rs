//! What the environment says, and its defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use reqwest::Url;
use stampede_resilience::DestinationPolicy;
use stampede_service::env::EnvError;
use stampede_service::{Env, Identity, Rotating, Secret};

use crate::clients::ProviderSettings;

/// Name of the service: its database, its user, its consumer.
pub const SERVICE: &str = "payments";
/// Who this is.
pub const IDENTITY: Identity = Identity {
    service: SERVICE,
    version: env!("CARGO_PKG_VERSION"),
    blueprint: include_str!("../blueprint.toml"),
};
/// Partitions of its outbox.
pub const OUTBOX_PARTITIONS: u16 = 8;

/// The configuration, beside what every service can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The payment provider.
    pub provider: ProviderSettings,
    /// How operations are driven.
    pub work: WorkSettings,
    /// The listener for the provider.
    pub webhooks: WebhookSettings,
}

/// How operations are driven.
#[derive(Debug, Clone, Copy)]
pub struct WorkSettings {
    /// Operations driven at once, at most.
    pub workers: usize,
    /// Operations that wait in memory, at most.
    pub queue_max: usize,
    /// How long a row belongs to a replica; an attempt takes at most half of it.
    pub lease: Duration,
    /// Ceiling of the first pause after an attempt without outcome.
    pub retry_min: Duration,
    /// The longest pause.
    pub retry_max: Duration,
}

/// The listener for the provider.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What signs.
    pub secret: Rotating<Secret>,
    /// How far the time of sending may be from now.
    pub tolerance: Duration,
}

/// A lease during which no call of the provider could end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("LEASE_MS must be at least twice attempt_ms of calls.provider in blueprint.toml")]
pub struct LeaseTooShort;

impl Config {
    /// Whether the parts fit together.
    ///
    /// # Errors
    /// [`LeaseTooShort`]: an attempt may take half of a lease, and one call of the provider has to fit into it.
    pub fn check(&self, provider: &DestinationPolicy) -> Result<(), LeaseTooShort> {
        let call = Duration::from_millis(provider.attempt_ms);
        if self.work.lease / 2 >= call { Ok(()) } else { Err(LeaseTooShort) }
    }

    /// Reads the keys in the table of the README.
    ///
    /// # Errors
    /// [`EnvError`] names the key that is missing or cannot be read.
    pub fn from_env(env: &Env) -> Result<Self, EnvError> {
        Ok(Self {
            provider: provider(env)?,
            work: WorkSettings {
                workers: env.parse_or("WORKERS", 64)?,
                queue_max: env.parse_or("QUEUE_MAX", 512)?,
                lease: env.millis_or("LEASE_MS", Duration::from_secs(20))?,
                retry_min: env.millis_or("RETRY_MIN_MS", Duration::from_millis(200))?,
                retry_max: env.millis_or("RETRY_MAX_MS", Duration::from_secs(10))?,
            },
            webhooks: WebhookSettings {
                listen: env.parse_or("WEBHOOK_LISTEN", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?,
                secret: env.parse("WEBHOOK_SECRET")?,
                tolerance: env.millis_or("WEBHOOK_TOLERANCE_MS", Duration::from_secs(300))?,
            },
        })
    }
}

/// What `payments reconcile` needs beside the database.
#[derive(Debug, Clone)]
pub struct ReconcileConfig {
    /// The payment provider.
    pub provider: ProviderSettings,
    /// What is younger is left out: it may be on its way.
    pub min_age: Duration,
}

impl ReconcileConfig {
    /// Reads the keys in the table of the README.
    ///
    /// # Errors
    /// [`EnvError`] names the key that is missing or cannot be read.
    pub fn from_env(env: &Env) -> Result<Self, EnvError> {
        let min_age = env.millis_or("RECONCILE_MIN_AGE_MS", Duration::from_secs(60))?;
        Ok(Self { provider: provider(env)?, min_age })
    }
}

fn provider(env: &Env) -> Result<ProviderSettings, EnvError> {
    Ok(ProviderSettings { url: env.parse::<Url>("PSP_URL")?, api_key: env.secret("PSP_API_KEY")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provider_and_two_secrets_are_all_it_needs() {
        let needed = [("PSP_URL", "http://127.0.0.1:4300"), ("PSP_API_KEY", "k"), ("WEBHOOK_SECRET", "s")];
        let config = Config::from_env(&Env::from_pairs(needed)).unwrap();
        assert_eq!(config.work.workers, 64);
        let policy = DestinationPolicy { attempt_ms: 4_000, ..DestinationPolicy::DEFAULT };
        assert_eq!(config.check(&policy), Ok(()));
        for missing in 0..needed.len() {
            let rest = needed.into_iter().enumerate().filter(|(index, _)| *index != missing);
            let error = Config::from_env(&Env::from_pairs(rest.map(|(_, pair)| pair))).unwrap_err();
            assert!(error.to_string().contains(needed[missing].0), "{error}");
        }
        let hasty = needed.into_iter().chain([("LEASE_MS", "7999")]);
        assert_eq!(Config::from_env(&Env::from_pairs(hasty)).unwrap().check(&policy), Err(LeaseTooShort));
    }
}
