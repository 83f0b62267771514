//! Everything this service can be told, and nowhere else is the environment read.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use stampede_load_shed::{InvalidSettings, Limits, Settings, Waiting};
use stampede_rate_limit::{InvalidQuota, Quota};
use stampede_service::env::EnvError;
use stampede_service::{Env, Environment, Rotating, Secret};

use crate::domain::peer::{ForwardedHeader, TrustedProxies};

/// The shortest operator token, in characters: it is all that protects the operators' calls.
const OPERATOR_TOKEN_MIN: usize = 16;

/// The gateway's configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Tokens of sessions.
    pub sessions: SessionConfig,
    /// The operators' bearer token.
    pub operator_token: Rotating<Secret>,
    /// Turns path and body of a hold into its fingerprint. The same in every gateway: fingerprints are stored.
    pub fingerprint_key: Rotating<Key>,
    /// Who a request comes from.
    pub proxies: ProxyConfig,
    /// How often clients may ask.
    pub limits: LimitConfig,
    /// How many requests are under way at the same time, those about orders apart.
    pub shed: Settings,
    /// How long a request may take.
    pub times: TimeConfig,
    /// Open streams of server-sent events.
    pub streams: StreamConfig,
    /// What browsers see while catalog does not answer.
    pub last_copies: LastCopyConfig,
    /// Where a buyer gets a card token; nothing in production, where there are no test cards.
    pub tokens_public_url: Option<String>,
}

/// Tokens of sessions.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Signs them. The same in every gateway.
    pub key: Rotating<Key>,
    /// How long one is valid.
    pub ttl: Duration,
}

/// Who a request comes from.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// The peers that are believed.
    pub trusted: TrustedProxies,
    /// The header they write.
    pub header: ForwardedHeader,
}

/// How often clients may ask.
#[derive(Debug, Clone)]
pub struct LimitConfig {
    /// New sessions of an address.
    pub sessions: Quota,
    /// Requests of a session.
    pub by_session: Quota,
    /// Requests without a session of an address.
    pub by_address: Quota,
    /// How many sessions, and how many addresses, are remembered.
    pub keys_max: usize,
}

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
pub struct TimeConfig {
    /// The deadline of a request that names none.
    pub deadline_default: Duration,
    /// The deadline of a request that names a shorter one.
    pub deadline_min: Duration,
    /// The longest deadline a client may name.
    pub deadline_max: Duration,
    /// How long the body of a request may take to arrive.
    pub body: Duration,
}

/// Open streams of server-sent events.
#[derive(Debug, Clone, Copy)]
pub struct StreamConfig {
    /// How many at once.
    pub max: usize,
    /// How many of one client at once.
    pub max_per_client: usize,
    /// How long one lasts; its client connects again.
    pub max_age: Duration,
}

/// What browsers see while catalog does not answer.
#[derive(Debug, Clone, Copy)]
pub struct LastCopyConfig {
    /// How much memory the copies may take.
    pub bytes_max: u64,
    /// How old one may be.
    pub age_max: Duration,
}

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Missing, or not of its type.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// A rate limit that cannot be kept.
    #[error("a rate limit is not valid")]
    Quota(#[from] InvalidQuota),
    /// Bounds of the limit that sheds.
    #[error("SHED_LIMIT_MIN, SHED_LIMIT_INITIAL, SHED_LIMIT_MAX")]
    Shed(#[from] InvalidSettings),
    /// Too easy to guess.
    #[error("OPERATOR_TOKEN must have at least {OPERATOR_TOKEN_MIN} characters")]
    OperatorTokenTooShort,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// [`ConfigError`] names the key.
    pub fn from_env(env: &Env, environment: Environment) -> Result<Self, ConfigError> {
        let operator_token: Rotating<Secret> = env.parse("OPERATOR_TOKEN")?;
        if operator_token.iter().any(|token| token.expose().len() < OPERATOR_TOKEN_MIN) {
            return Err(ConfigError::OperatorTokenTooShort);
        }
        let tokens_public_url = env.optional("TOKENS_PUBLIC_URL").filter(|_| !environment.is_production());
        Ok(Self {
            sessions: SessionConfig {
                key: env.parse("SESSION_KEY")?,
                ttl: env.millis_or("SESSION_TTL_MS", Duration::from_secs(24 * 60 * 60))?,
            },
            operator_token,
            fingerprint_key: env.parse("FINGERPRINT_KEY")?,
            proxies: ProxyConfig {
                trusted: env.parse_or("TRUSTED_PROXIES", TrustedProxies::default())?,
                header: env.parse_or("TRUSTED_PROXY_HEADER", ForwardedHeader::XForwardedFor)?,
            },
            limits: limits(env)?,
            shed: shed(env)?,
            times: TimeConfig {
                deadline_default: env.millis_or("DEADLINE_DEFAULT_MS", Duration::from_secs(10))?,
                deadline_min: env.millis_or("DEADLINE_MIN_MS", Duration::from_millis(500))?,
                deadline_max: env.millis_or("DEADLINE_MAX_MS", Duration::from_secs(30))?,
                body: env.millis_or("BODY_TIMEOUT_MS", Duration::from_secs(5))?,
            },
            last_copies: LastCopyConfig {
                bytes_max: env.parse_or("LAST_COPIES_MAX_BYTES", 16 * 1024 * 1024)?,
                age_max: env.millis_or("LAST_COPY_AGE_MAX_MS", Duration::from_secs(60 * 60))?,
            },
            streams: StreamConfig {
                max: env.parse_or("STREAMS_MAX", 1_000)?,
                max_per_client: env.parse_or("STREAMS_PER_CLIENT_MAX", 16)?,
                max_age: env.millis_or("STREAM_MAX_AGE_MS", Duration::from_secs(15 * 60))?,
            },
            tokens_public_url,
        })
    }
}

fn limits(env: &Env) -> Result<LimitConfig, ConfigError> {
    let number = |key: &str, default: NonZeroU32| env.parse_or(key, default);
    let per_minute = number("SESSIONS_PER_MINUTE", at_least_one(60))?;
    Ok(LimitConfig {
        sessions: Quota::try_one_per(
            Duration::from_secs(60) / per_minute.get(),
            number("SESSIONS_BURST", at_least_one(60))?,
        )?,
        by_session: Quota::try_new(
            number("SESSION_REQUESTS_PER_SECOND", at_least_one(20))?,
            number("SESSION_REQUESTS_BURST", at_least_one(100))?,
        )?,
        by_address: Quota::try_new(
            number("ADDRESS_REQUESTS_PER_SECOND", at_least_one(50))?,
            number("ADDRESS_REQUESTS_BURST", at_least_one(200))?,
        )?,
        keys_max: env.parse_or("RATE_LIMIT_KEYS_MAX", 50_000)?,
    })
}

/// Far apart: the limit is to find itself, and never to fall so low that a slow neighbour keeps everybody out.
fn shed(env: &Env) -> Result<Settings, ConfigError> {
    let limits = Limits {
        min: env.parse_or("SHED_LIMIT_MIN", 64)?,
        initial: env.parse_or("SHED_LIMIT_INITIAL", 256)?,
        max: env.parse_or("SHED_LIMIT_MAX", 4_096)?,
    };
    let waiting = Waiting { queue_max: env.parse_or("SHED_QUEUE_MAX", 512)?, ..Waiting::default() };
    Ok(Settings::try_new(limits, waiting)?)
}

const fn at_least_one(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

/// 32 secret bytes, written as 64 hexadecimal digits. Never printed.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// The bytes. Every call is a place to look at in a review.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The text is no key; what it is instead is not shown, it may be a secret in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it must be 64 hexadecimal digits")]
pub struct InvalidKey;

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let mut key = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidKey);
        }
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).map_err(|_| InvalidKey)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| InvalidKey)?;
        }
        Ok(Self(key))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs() -> Vec<(&'static str, String)> {
        vec![
            ("SESSION_KEY", "a1".repeat(32)),
            ("FINGERPRINT_KEY", "b2".repeat(32)),
            ("OPERATOR_TOKEN", "operator-token-of-the-test".to_owned()),
        ]
    }

    fn read(more: &[(&'static str, &str)]) -> Result<Config, ConfigError> {
        let more = more.iter().map(|(key, value)| (*key, (*value).to_owned()));
        let env = Env::from_pairs(pairs().into_iter().chain(more));
        Config::from_env(&env, Environment::Development)
    }

    #[test]
    fn three_secrets_are_all_it_needs() {
        let config = read(&[]).unwrap();
        assert_eq!(config.sessions.ttl, Duration::from_secs(86_400));
        assert_eq!(config.times.deadline_max, Duration::from_secs(30));
        assert!(config.tokens_public_url.is_none());
        let missing = Config::from_env(&Env::default(), Environment::Development).unwrap_err();
        assert_eq!(missing.to_string(), "OPERATOR_TOKEN is not set; expected a secret");
    }

    #[test]
    fn who_names_no_deadline_has_the_one_of_the_blueprint() {
        let blueprint = stampede_blueprint::Blueprint::parse(crate::IDENTITY.blueprint).unwrap();
        let default = u64::try_from(read(&[]).unwrap().times.deadline_default.as_millis()).unwrap();
        for (name, offer) in &blueprint.offers {
            assert_eq!(offer.deadline_ms, Some(default), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let error = |key, value| read(&[(key, value)]).unwrap_err().to_string();
        assert!(error("SESSION_KEY", "abc").starts_with("SESSION_KEY is not valid: it must be 64"));
        assert!(error("OPERATOR_TOKEN", "short").contains("at least 16"));
        assert!(error("OPERATOR_TOKEN", "operator-token-of-the-test,short").contains("at least 16"));
        assert!(error("TRUSTED_PROXIES", "10.0.0.0/33").starts_with("TRUSTED_PROXIES is not valid"));
        assert!(error("SHED_LIMIT_MIN", "257").starts_with("SHED_LIMIT_MIN, SHED_LIMIT_INITIAL"));
        assert!(error("SESSIONS_PER_MINUTE", "0").starts_with("SESSIONS_PER_MINUTE is not valid"));
    }

    #[test]
    fn printing_it_shows_no_secret() {
        let printed = format!("{:?}", read(&[]).unwrap());
        assert!(!printed.contains("operator-token") && !printed.contains("161"), "{printed}");
    }

    #[test]
    fn production_knows_no_test_cards() {
        let env = Env::from_pairs(pairs().into_iter().chain([("TOKENS_PUBLIC_URL", "http://x".to_owned())]));
        let read = |environment| Config::from_env(&env, environment).unwrap().tokens_public_url;
        assert_eq!(read(Environment::Development).as_deref(), Some("http://x"));
        assert_eq!(read(Environment::Production), None);
    }
}
