//! Why a process could not start.

use std::error::Error as _;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::env::EnvError;

/// Why a process could not start. `main` returns it, so that the process says why and ends with 1.
#[derive(thiserror::Error)]
pub enum Error {
    /// A key of the environment.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The blueprint that was compiled in.
    #[error("blueprint.toml")]
    Blueprint(#[from] stampede_blueprint::Invalid),
    /// A blueprint of another service.
    #[error("blueprint.toml is that of {found}, not of {service}")]
    OthersBlueprint {
        /// Who this is.
        service: &'static str,
        /// Whose it is.
        found: String,
    },
    /// The destinations cannot be made.
    #[error("blueprint.toml: calls")]
    Destinations(#[from] stampede_resilience::InvalidDestination),
    /// The code calls somebody of whom the blueprint says nothing.
    #[error("blueprint.toml has no [calls.{name}]")]
    NoDestination {
        /// Who is called.
        name: String,
    },
    /// There is a database in the environment or the code, and none in the blueprint.
    #[error("blueprint.toml has no [database] with a pool {pool:?}")]
    NoPool {
        /// The pool that was asked for.
        pool: String,
    },
    /// Traces, metrics or logs.
    #[error(transparent)]
    Telemetry(#[from] stampede_telemetry::Error),
    /// `Node::start` was called outside of a tokio runtime.
    #[error("a node starts inside of a tokio runtime")]
    NoRuntime(#[from] tokio::runtime::TryCurrentError),
    /// Nobody could ask the process to end.
    #[error("signals cannot be received")]
    Signals(#[source] std::io::Error),
    /// The default restart policy is not valid.
    #[error("the restart policy is not valid")]
    RestartPolicy(#[from] stampede_supervisor::InvalidPolicy),
    /// An address could not be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// NATS lets this service not in, or is not there.
    #[error(transparent)]
    Messaging(#[from] stampede_bus::ConnectError),
    /// The database could not be reached or refuses us.
    #[error("the database cannot be used")]
    Database(#[from] sqlx::Error),
    /// A migration failed, or differs from the one that was applied.
    #[error("the database's schema cannot be brought up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// Nobody ran the migrations of this version in time.
    #[error(
        "the database's schema lacks migration {version} and nobody ran it within {waited:?}; run `migrate`"
    )]
    SchemaBehind {
        /// The first migration that is missing.
        version: i64,
        /// How long it was waited for.
        waited: Duration,
    },
}

/// A `main` that returns an error prints it with `Debug`: what an operator then reads should be sentences.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut source = self.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_main_prints_is_a_sentence_with_its_causes() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let error = Error::Listen { address, source: std::io::Error::other("taken") };
        assert_eq!(format!("{error:?}"), "cannot listen on 127.0.0.1:80: taken");
        let error = Error::from(crate::Env::default().string("KEY").unwrap_err());
        assert_eq!(format!("{error:?}"), "KEY is not set; expected a text");
    }
}
