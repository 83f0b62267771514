//! What the environment says, and its defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use reqwest::Url;
use stampede_service::env::EnvError;
use stampede_service::{Env, Rotating, Secret};

use crate::webhooks::Target;

/// The configuration of this simulator, beside what every process can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the merchant shows as bearer token.
    pub api_key: Rotating<Secret>,
    /// Where buyers get card tokens.
    pub tokens_listen: SocketAddr,
    /// How buyers reach `POST /tokens` from outside; by default the bound address.
    pub tokens_url: Option<String>,
    /// Where the merchant wants to be told; without it there are no webhooks.
    pub webhooks: Option<Target>,
    /// After this time an unknown key stays unknown.
    pub max_in_flight: Duration,
}

impl Config {
    /// Reads `API_KEY`, `TOKENS_LISTEN`, `TOKENS_URL`, `WEBHOOK_URL`, `WEBHOOK_SECRET` and `MAX_IN_FLIGHT_MS`.
    ///
    /// # Errors
    /// [`EnvError`] names the key that is missing or cannot be read.
    pub fn from_env(env: &Env) -> Result<Self, EnvError> {
        let webhooks = match env.parse_optional::<Url>("WEBHOOK_URL")? {
            Some(url) => Some(Target { url, secret: env.parse("WEBHOOK_SECRET")? }),
            None => None,
        };
        Ok(Self {
            api_key: env.parse("API_KEY")?,
            tokens_listen: env.parse_or("TOKENS_LISTEN", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?,
            tokens_url: env.optional("TOKENS_URL"),
            webhooks,
            max_in_flight: env.millis_or("MAX_IN_FLIGHT_MS", Duration::from_secs(10))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_webhooks_needs_a_secret() {
        let config = Config::from_env(&Env::from_pairs([("API_KEY", "k")])).unwrap();
        assert!(config.webhooks.is_none());
        assert_eq!(config.max_in_flight, Duration::from_secs(10));
        let unsigned = Env::from_pairs([("API_KEY", "k"), ("WEBHOOK_URL", "http://127.0.0.1:1/webhooks")]);
        let error = Config::from_env(&unsigned).unwrap_err().to_string();
        assert!(error.contains("WEBHOOK_SECRET"), "{error}");
    }
}
