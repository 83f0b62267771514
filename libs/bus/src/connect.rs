//! The connection of a process: who it is, and what it notices.

use std::error::Error as _;
use std::fmt;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Auth, Client, ConnectErrorKind, ConnectOptions, Event};
use stampede_resilience::Destinations;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::metrics::Metrics;
use crate::replies::Replies;
use crate::watched::Watched;

/// How long [`Bus::connect`] tries before it says that there is no server.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
const CONNECT_PAUSE: Duration = Duration::from_millis(250);
/// One attempt: name, TCP, handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(3);
/// A server that answers no ping is given up after three of them.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Messages that wait in memory for one subscription. What comes on top is dropped by the client library, which is
/// counted; every subscription of this crate is read by a task that does nothing slow.
const SUBSCRIPTION_CAPACITY: usize = 16_384;
/// How long [`Bus::drain`] takes at most.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// Where the server is and as whom to speak to it.
#[derive(Clone)]
pub struct Settings {
    /// `nats://host:port`, or several of them separated by commas. Where one is `tls://…`, all are spoken to over TLS;
    /// their certificates have to chain to a CA of the system, or of the file in `SSL_CERT_FILE`.
    pub url: String,
    /// The user; it also names the inboxes, `_INBOX_<user>.…`, so that nobody reads another's answers.
    pub user: String,
    /// Its password. While it is replaced there may be several, separated by commas: the server takes one of them.
    pub password: String,
    /// The service: its name goes into dead-letter subjects.
    pub service: String,
    /// This process among its replicas.
    pub instance: String,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, user, password: _, service, instance } = self;
        f.debug_struct("Settings")
            .field("url", url)
            .field("user", user)
            .field("service", service)
            .field("instance", instance)
            .finish_non_exhaustive()
    }
}

/// There is no connection, and trying longer is pointless.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The server is there and does not let this user in.
    #[error("NATS at {url} refuses the user {user}")]
    Refused {
        /// The server.
        url: String,
        /// The user.
        user: String,
    },
    /// No server answered within half a minute.
    #[error("no NATS server at {url} within {} s", CONNECT_WITHIN.as_secs())]
    Unreachable {
        /// The server.
        url: String,
        /// Why the last attempt failed.
        source: async_nats::ConnectError,
    },
    /// The address cannot be read, or the connection closed again at once.
    #[error("the connection to {url} cannot be used")]
    Unusable {
        /// The server.
        url: String,
        /// Why.
        source: crate::BoxError,
    },
}

/// A connection to NATS. A handle: clones share it.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    jetstream: async_nats::jetstream::Context,
    replies: Replies,
    watched: Arc<Watched>,
    metrics: Metrics,
    destinations: Destinations,
    service: String,
}

impl Bus {
    /// Connects, and keeps connected: after this the client library comes back by itself, as often as needed. Whoever
    /// has no policies of its own, a test or a tool, calls by those of this crate.
    ///
    /// # Errors
    /// [`ConnectError::Refused`] at once when user or password are wrong; [`ConnectError::Unreachable`] when there was
    /// no server for half a minute.
    pub async fn connect(settings: Settings) -> Result<Self, ConnectError> {
        Self::connect_with(settings, Destinations::default()).await
    }

    /// Like [`connect`](Self::connect), and calls each of these destinations as its policy says: a service by its name,
    /// and JetStream, to which messages are published, as `jetstream`.
    ///
    /// # Errors
    /// See [`connect`](Self::connect).
    pub async fn connect_with(settings: Settings, destinations: Destinations) -> Result<Self, ConnectError> {
        let metrics = Metrics::new();
        let watched = Arc::new(Watched::new(metrics.clone()));
        let client = reach(&settings, &watched).await?;
        let replies = Replies::subscribe(&client)
            .await
            .map_err(|source| ConnectError::Unusable { url: settings.url.clone(), source: source.into() })?;
        let jetstream = async_nats::jetstream::new(client.clone());
        let service = settings.service;
        let inner = Inner { client, jetstream, replies, watched, metrics, destinations, service };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn destinations(&self) -> &Destinations {
        &self.inner.destinations
    }

    /// Whether there is a connection now. A server that hangs is noticed after some six seconds.
    pub fn is_connected(&self) -> bool {
        self.client().connection_state() == State::Connected
    }

    /// How often the server said that this user may not do what it tried. Always a fault in the rights or in the
    /// program: a test fails on it, and an alarm is due.
    pub fn violations(&self) -> u64 {
        self.inner.watched.violations.load(Ordering::Relaxed)
    }

    /// Sends what is buffered, ends all subscriptions and closes the connection. After [`DRAIN_WITHIN`] what is not
    /// sent stays unsent.
    pub async fn drain(&self) {
        let mut closed = self.inner.watched.closed.subscribe();
        let work = async {
            if self.client().drain().await.is_ok() {
                let _ = closed.wait_for(|closed| *closed).await;
            }
        };
        if timeout(DRAIN_WITHIN, work).await.is_err() {
            tracing::warn!("the connection to NATS was not drained in time");
        }
    }

    /// The client underneath, for what this crate does not cover.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// JetStream, for those that may create streams and consumers: `stampede provision`, and tests.
    pub fn jetstream(&self) -> &async_nats::jetstream::Context {
        &self.inner.jetstream
    }

    /// Changes with every new connection.
    pub(crate) fn connections(&self) -> watch::Receiver<u64> {
        self.inner.watched.connections.subscribe()
    }

    pub(crate) fn replies(&self) -> &Replies {
        &self.inner.replies
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(crate) fn service(&self) -> &str {
        &self.inner.service
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("service", &self.inner.service).finish_non_exhaustive()
    }
}

/// The passwords of a user, in turn. While one is replaced, servers and processes have the new one at different moments.
struct Passwords {
    all: Vec<String>,
    turn: AtomicUsize,
}

impl Passwords {
    fn of(settings: &Settings) -> Self {
        Self {
            all: settings.password.split(',').map(|one| one.trim().to_owned()).collect(),
            turn: AtomicUsize::new(0),
        }
    }

    fn next(&self) -> Option<String> {
        self.all.get(self.turn.fetch_add(1, Ordering::Relaxed) % self.all.len()).cloned()
    }

    /// The next connection begins with the one that the server took.
    fn taken(&self) {
        self.turn.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tries until there is a server. The library's own `retry_on_initial_connect` would also try a wrong password for
/// ever, and says so only in a text.
async fn reach(settings: &Settings, watched: &Arc<Watched>) -> Result<Client, ConnectError> {
    let url = settings.url.clone();
    let addresses: Vec<String> = url.split(',').map(|address| address.trim().to_owned()).collect();
    let passwords = Arc::new(Passwords::of(settings));
    let mut refused = 0;
    let give_up = Instant::now() + CONNECT_WITHIN;
    loop {
        let source = match options(settings, &passwords, watched).connect(addresses.as_slice()).await {
            Ok(client) => return Ok(client),
            Err(source) => source,
        };
        match source.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                refused += 1;
                if refused < passwords.all.len() {
                    continue;
                }
                return Err(ConnectError::Refused { url, user: settings.user.clone() });
            }
            kind if matches!(kind, ConnectErrorKind::ServerParse | ConnectErrorKind::Tls)
                || is_not_convincing(&source) =>
            {
                return Err(ConnectError::Unusable { url, source: source.into() });
            }
            _ if Instant::now() + CONNECT_PAUSE >= give_up => {
                return Err(ConnectError::Unreachable { url, source });
            }
            _ => tracing::info!(%url, error = %source, "no NATS server yet"),
        }
        sleep(CONNECT_PAUSE).await;
    }
}

fn options(settings: &Settings, passwords: &Arc<Passwords>, watched: &Arc<Watched>) -> ConnectOptions {
    let Settings { url, user, password: _, service, instance } = settings;
    let (watched, shown, taken) = (Arc::clone(watched), Arc::clone(passwords), Arc::clone(passwords));
    let name = user.clone();
    let options = ConnectOptions::with_auth_callback(move |_nonce| {
        let mut auth = Auth::new();
        (auth.username, auth.password) = (Some(name.clone()), shown.next());
        ready(Ok(auth))
    });
    let options = options
        .name(format!("{service}/{instance}"))
        .custom_inbox_prefix(format!("_INBOX_{user}"))
        .connection_timeout(HANDSHAKE_WITHIN)
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .reconnect_delay_callback(reconnect_pause)
        .event_callback(move |event| {
            if matches!(event, Event::Connected) {
                taken.taken();
            }
            let watched = Arc::clone(&watched);
            async move { watched.on(&event) }
        });
    if url.split(',').any(|address| address.trim().starts_with("tls://")) {
        // Servers name each other by addresses, and certificates are for names.
        options.require_tls(true).ignore_discovered_servers()
    } else {
        options
    }
}

/// Whether the server's certificate leads to no authority we trust, or it has none: waiting makes no other one.
fn is_not_convincing(error: &async_nats::ConnectError) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::InvalidData)
}

/// At once the first time, then soon and at random: all processes lose the server together.
fn reconnect_pause(attempt: usize) -> Duration {
    if attempt <= 1 { Duration::ZERO } else { RECONNECT_PAUSE_MAX.mul_f64(rand::random_range(0.1..=1.0)) }
}

/// Runs `work` until `until` at the latest.
pub(crate) async fn until<F: Future>(until: Instant, work: F) -> Option<F::Output> {
    timeout_at(until, work).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_not_shown() {
        let settings = Settings {
            url: "nats://localhost".into(),
            user: "orders".into(),
            password: "hunter2".into(),
            service: "orders".into(),
            instance: "orders-1".into(),
        };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn a_lost_server_is_looked_for_at_once_and_then_at_short_random_intervals() {
        assert_eq!(reconnect_pause(1), Duration::ZERO);
        for attempt in 2..50 {
            let pause = reconnect_pause(attempt);
            assert!(pause >= RECONNECT_PAUSE_MAX / 10 && pause <= RECONNECT_PAUSE_MAX, "{pause:?}");
        }
    }
}
