//! What every process of this system can be told.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use stampede_telemetry::LogFormat;
use uuid::Uuid;

use crate::env::EnvError;
use crate::{Env, Secret};

/// The settings all services have in common; the README lists the keys.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which of several replicas this is.
    pub instance: String,
    /// Laptop or production.
    pub environment: Environment,
    /// Where requests are taken.
    pub http_listen: SocketAddr,
    /// Where probes and metrics are served.
    pub admin_listen: SocketAddr,
    /// The host that others are told, when it is not the bound one; the ports are the bound ones.
    pub advertise: Option<Host>,
    /// How many connections a listener has open; the longest silent one makes room for another.
    pub http_connections_max: usize,
    /// How many of them come from one address.
    pub http_connections_per_address_max: usize,
    /// How long a connection may be silent between requests.
    pub http_idle_timeout: Duration,
    /// How long the head of a request may take from its first byte on.
    pub http_head_timeout: Duration,
    /// How long a client may refuse to take more of an answer.
    pub http_write_timeout: Duration,
    /// The service's own database.
    pub database_url: Option<Secret>,
    /// What replaces numbers of the blueprint in this process.
    pub database: DatabaseOverrides,
    /// How long starting may wait for the database and its schema.
    pub startup_timeout: Duration,
    /// The messaging server.
    pub nats: NatsSettings,
    /// The shape of log lines.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_filter: String,
    /// The collector of traces.
    pub otlp_endpoint: Option<String>,
    /// The share of new traces that is sampled.
    pub trace_sample_ratio: f64,
    /// How long a node that is not ready any more still takes requests, until everybody knows.
    pub drain_delay: Duration,
    /// How long requests in flight may take to finish.
    pub drain_timeout: Duration,
}

/// Numbers of the blueprint that this process replaces: a replica on another machine, a test.
#[derive(Debug, Clone, Copy, Default)]
pub struct DatabaseOverrides {
    /// Connections of the pool for requests.
    pub connections: Option<u32>,
    /// How long work waits for a connection of its pool.
    pub wait_ms: Option<u64>,
    /// After which the server ends a statement.
    pub statement_ms: Option<u64>,
    /// After which the server ends a wait for a lock.
    pub lock_ms: Option<u64>,
}

/// How the messaging server is reached. Plain values; `stampede-bus` connects.
#[derive(Debug, Clone)]
pub struct NatsSettings {
    /// The server, or several, separated by commas.
    pub url: String,
    /// The service's own user.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

impl Settings {
    /// Reads the settings of `service`.
    ///
    /// # Errors
    /// [`EnvError`] names the first key that is missing or cannot be read.
    pub fn from_env(env: &Env, service: &str) -> Result<Self, EnvError> {
        let password = env.secret("NATS_PASSWORD")?;
        Self::with_nats_password(env, service, password)
    }

    /// Reads the settings of a process that does not use messaging, and so needs no password for it.
    pub(crate) fn without_messaging(env: &Env, service: &str) -> Result<Self, EnvError> {
        Self::with_nats_password(env, service, env.optional_secret("NATS_PASSWORD").unwrap_or_default())
    }

    fn with_nats_password(env: &Env, service: &str, password: Secret) -> Result<Self, EnvError> {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let connections_max = env.parse_or::<usize>("HTTP_CONNECTIONS_MAX", 4096)?.max(1);
        Ok(Self {
            instance: env.optional("INSTANCE").unwrap_or_else(|| random_instance(service)),
            environment: env.parse_or("ENVIRONMENT", Environment::Development)?,
            http_listen: env.parse_or("HTTP_LISTEN", any_port)?,
            admin_listen: env.parse_or("ADMIN_LISTEN", any_port)?,
            advertise: env.parse_optional("ADVERTISE")?,
            http_connections_max: connections_max,
            // One address gets half of them; proxies, which have many clients, are excepted.
            http_connections_per_address_max: env
                .parse_or("HTTP_CONNECTIONS_PER_ADDRESS_MAX", connections_max.div_ceil(2))?,
            // Longer than the 90 s for which reqwest keeps an idle connection: the side that sends should be the one
            // that closes, or a request meets a connection that is just going away.
            http_idle_timeout: env.millis_or("HTTP_IDLE_TIMEOUT_MS", Duration::from_secs(100))?,
            http_head_timeout: env.millis_or("HEAD_TIMEOUT_MS", Duration::from_secs(10))?,
            http_write_timeout: env.millis_or("WRITE_TIMEOUT_MS", Duration::from_secs(30))?,
            database_url: env.optional_secret("DATABASE_URL"),
            database: DatabaseOverrides {
                connections: env.parse_optional("DATABASE_MAX_CONNECTIONS")?,
                wait_ms: env.parse_optional("DATABASE_ACQUIRE_TIMEOUT_MS")?,
                statement_ms: env.parse_optional("DATABASE_STATEMENT_TIMEOUT_MS")?,
                lock_ms: env.parse_optional("DATABASE_LOCK_TIMEOUT_MS")?,
            },
            startup_timeout: env.millis_or("STARTUP_TIMEOUT_MS", Duration::from_secs(60))?,
            nats: NatsSettings {
                url: env.string_or("NATS_URL", "nats://127.0.0.1:4222"),
                user: env.string_or("NATS_USER", service),
                password,
            },
            log_format: env.parse_or("LOG_FORMAT", LogFormat::Auto)?,
            log_filter: env.string_or("RUST_LOG", "info"),
            otlp_endpoint: env.optional("OTEL_EXPORTER_OTLP_ENDPOINT"),
            trace_sample_ratio: env.parse_or("OTEL_TRACES_SAMPLER_ARG", 1.0)?,
            drain_delay: env.millis_or("DRAIN_DELAY_MS", Duration::ZERO)?,
            drain_timeout: env.millis_or("DRAIN_TIMEOUT_MS", Duration::from_secs(10))?,
        })
    }
}

impl Settings {
    /// Lowers the limits of connections to what the limit of open files allows.
    pub(crate) fn fit(&mut self, connections_max: usize) {
        if self.http_connections_max > connections_max {
            tracing::info!(configured = self.http_connections_max, connections_max, "few files may be open");
            self.http_connections_max = connections_max;
            let of_an_address = connections_max.div_ceil(2);
            self.http_connections_per_address_max = self.http_connections_per_address_max.min(of_an_address);
        }
    }
}

fn random_instance(service: &str) -> String {
    let random = Uuid::new_v4().simple().to_string();
    format!("{service}-{}", random.get(..8).unwrap_or(&random))
}

/// Where the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// A laptop or a test: comfort first.
    Development,
    /// Where it counts.
    Production,
}

impl Environment {
    /// Whether this is production.
    pub fn is_production(self) -> bool {
        self == Self::Production
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Development => "development",
            Self::Production => "production",
        })
    }
}

impl FromStr for Environment {
    type Err = UnknownEnvironment;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "development" => Ok(Self::Development),
            "production" => Ok(Self::Production),
            _ => Err(UnknownEnvironment),
        }
    }
}

/// A word that names no environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it must be development or production")]
pub struct UnknownEnvironment;

/// Where a process is reached, without a port: an IP address or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(String);

impl Host {
    /// `host:port`, with the port that was bound.
    pub fn at(&self, bound: SocketAddr) -> String {
        format!("{}:{}", self.0, bound.port())
    }
}

impl FromStr for Host {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let belongs = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        match text.parse() {
            Ok(IpAddr::V6(address)) => Ok(Self(format!("[{address}]"))),
            Ok(IpAddr::V4(address)) => Ok(Self(address.to_string())),
            Err(_) if !text.is_empty() && text.chars().all(belongs) => Ok(Self(text.to_owned())),
            Err(_) => Err(NotAHost),
        }
    }
}

/// Neither an address nor a name, or more than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it must be an IP address or a host name, without a port")]
pub struct NotAHost;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_all_it_needs() {
        let settings = Settings::from_env(&Env::from_pairs([("NATS_PASSWORD", "p")]), "orders").unwrap();
        assert!(settings.instance.starts_with("orders-"));
        assert_eq!(settings.nats.user, "orders");
        assert_eq!(settings.http_listen.port(), 0);
        assert_eq!(settings.environment, Environment::Development);
        assert!(settings.database_url.is_none());
    }

    #[test]
    fn without_messaging_no_password_is_asked_for() {
        let nothing = Env::default();
        let missing = Settings::from_env(&nothing, "orders").unwrap_err();
        assert_eq!(missing.to_string(), "NATS_PASSWORD is not set; expected a secret");
        assert!(Settings::without_messaging(&nothing, "orders").is_ok());
    }

    #[test]
    fn a_host_is_told_with_the_port_that_was_bound() {
        let bound = SocketAddr::from(([0, 0, 0, 0], 8080));
        for (host, told) in [
            ("10.0.0.7", "10.0.0.7:8080"),
            ("fd00::7", "[fd00::7]:8080"),
            ("orders-1.orders", "orders-1.orders:8080"),
        ] {
            assert_eq!(host.parse::<Host>().unwrap().at(bound), told);
        }
        for wrong in ["", "10.0.0.7:8080", "[fd00::7]", "http://orders", "a b"] {
            assert_eq!(wrong.parse::<Host>(), Err(NotAHost), "{wrong}");
        }
    }

    #[test]
    fn printing_them_shows_no_secret() {
        let env =
            Env::from_pairs([("NATS_PASSWORD", "hunter2"), ("DATABASE_URL", "postgres://u:hunter3@h/d")]);
        let printed = format!("{:?}", Settings::from_env(&env, "orders").unwrap());
        assert!(!printed.contains("hunter"), "{printed}");
    }
}
