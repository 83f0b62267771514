//! What all handlers share.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use stampede_bus::{Bus, Members};
use stampede_deadline::Clock;
use stampede_idempotency::Fingerprinter;
use stampede_rate_limit::{NoKeys, RateLimiter};
use stampede_resilience::Gate;
use stampede_service::{AddressKey, Node, Rotating, Secret};
use tokio_util::sync::CancellationToken;

use stampede_contracts::SessionId;

use crate::clients::inventory::Inventory;
use crate::clients::last_copy::{InvalidCache, LastCopies};
use crate::clients::layout::Layout;
use crate::clients::upstream::{InvalidUpstream, Upstream};
use crate::config::{Config, ProxyConfig, TimeConfig};
use crate::domain::classes::Classes;
use crate::domain::operator::{NoRandomness, OperatorToken};
use crate::domain::session::SessionTokens;
use crate::domain::streams::OpenStreams;
use crate::metrics::Metrics;

/// The services whose replicas are found by heartbeats.
pub const NEIGHBOURS: [&str; 3] = ["catalog", "lobby", "orders"];

/// The gateway's parts. A handle: clones share them.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

/// What an [`App`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// Makes and verifies session tokens.
    pub sessions: SessionTokens,
    /// Verifies the operators' tokens.
    pub operator: OperatorToken,
    /// Turns path and body of a hold into its fingerprint.
    pub fingerprinter: Rotating<Fingerprinter>,
    /// How often clients may ask.
    pub limits: Limits,
    /// How urgent requests are.
    pub classes: Classes,
    /// Sheds the least urgent when there is too much to do.
    pub gate: Gate,
    /// Who a request comes from.
    pub proxies: ProxyConfig,
    /// How long a request may take.
    pub times: TimeConfig,
    /// Open streams.
    pub streams: Streams,
    /// The services that speak HTTP.
    pub upstream: Upstream,
    /// What browsers see while catalog does not answer.
    pub last_copies: LastCopies,
    /// The owners of seats.
    pub inventory: Inventory,
    /// Where blocks are.
    pub layout: Layout,
    /// Messaging.
    pub bus: Bus,
    /// Where a buyer gets a card token, outside production.
    pub tokens_public_url: Option<String>,
    /// What is counted.
    pub metrics: Metrics,
}

/// How often clients may ask: one limiter a kind, made once.
#[derive(Debug)]
pub struct Limits {
    /// New sessions of an address.
    pub sessions: RateLimiter<AddressKey>,
    /// Requests of a session.
    pub by_session: RateLimiter<SessionId>,
    /// Requests without a session of an address.
    pub by_address: RateLimiter<AddressKey>,
}

impl Limits {
    /// From now on the quotas are shared by so many gateways.
    pub fn share_among(&self, gateways: NonZeroU32) {
        self.sessions.share_among(gateways);
        self.by_session.share_among(gateways);
        self.by_address.share_among(gateways);
    }
}

/// Open streams of server-sent events.
#[derive(Debug)]
pub struct Streams {
    /// How many there are, and may be.
    pub open: OpenStreams<Client>,
    /// How long one lasts.
    pub max_age: Duration,
    /// Cancelled when they have to end.
    pub draining: CancellationToken,
}

/// Whoever a stream belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// A session.
    Session(SessionId),
    /// An address, for those who come with an order's secret.
    Address(AddressKey),
}

/// The parts cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `RATE_LIMIT_KEYS_MAX` is zero.
    #[error(transparent)]
    NoKeys(#[from] NoKeys),
    /// `LAST_COPIES_MAX_BYTES` makes no cache.
    #[error("LAST_COPIES_MAX_BYTES: {0}")]
    LastCopies(#[from] InvalidCache),
    /// A service cannot be called.
    #[error(transparent)]
    Upstream(#[from] InvalidUpstream),
    /// The operators' token could not be hidden.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl App {
    /// Puts the parts together. Streams end when `node` drains.
    ///
    /// # Errors
    /// [`Error`] when the configuration or the system does not allow it.
    pub fn try_new(
        config: Config,
        bus: Bus,
        members: &Members,
        node: &Node,
        layout: Layout,
    ) -> Result<Self, Error> {
        let metrics = Metrics::new();
        let limits = Limits {
            sessions: RateLimiter::try_new(config.limits.sessions, config.limits.keys_max, Clock::system())?,
            by_session: RateLimiter::try_new(
                config.limits.by_session,
                config.limits.keys_max,
                Clock::system(),
            )?,
            by_address: RateLimiter::try_new(
                config.limits.by_address,
                config.limits.keys_max,
                Clock::system(),
            )?,
        };
        let classes = Classes::of(node.blueprint());
        Ok(Self(Arc::new(Parts {
            sessions: SessionTokens::new(config.sessions.key.map(|key| *key.expose()), config.sessions.ttl),
            operator: OperatorToken::try_new(config.operator_token.iter().map(Secret::expose))?,
            fingerprinter: config.fingerprint_key.map(|key| Fingerprinter::new(key.expose())),
            limits,
            classes,
            gate: Gate::new("gateway", config.shed, Clock::system()),
            proxies: config.proxies,
            times: config.times,
            streams: Streams {
                open: OpenStreams::new(config.streams.max, config.streams.max_per_client),
                max_age: config.streams.max_age,
                draining: node.draining(),
            },
            upstream: Upstream::try_new(&NEIGHBOURS, node.destinations(), members, metrics.clone())?,
            last_copies: LastCopies::try_new(
                config.last_copies.bytes_max,
                config.last_copies.age_max,
                Clock::system(),
            )?,
            inventory: Inventory::new(bus.clone(), layout.clone()),
            layout,
            bus,
            tokens_public_url: config.tokens_public_url,
            metrics,
        })))
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
