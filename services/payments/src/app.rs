//! The service put together: what a process supervises, and the router of its one listener.

use axum::Router;
use stampede_bus::{BoxError, Bus, DeadLetterKeeper};
use stampede_contracts::topology::CMD_PAYMENTS;
use stampede_outbox::{Outbox, Relay, RelaySettings};
use stampede_postgres::PgPool;
use stampede_resilience::Destination;
use stampede_retry::Backoff;
use stampede_service::Secret;
use tokio_util::sync::CancellationToken;

use crate::clients::{Cards, Provider};
use crate::config::{Config, OUTBOX_PARTITIONS, SERVICE, WorkSettings};
use crate::domain::Verifier;
use crate::events::Taker;
use crate::housekeeping;
use crate::http::{self, Webhooks};
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::store::{LeaseSettings, Store};
use crate::worker::Worker;

/// All parts of the service. A handle: clones share them.
#[derive(Debug, Clone)]
pub struct App {
    bus: Bus,
    store: Store,
    outbox: Outbox,
    queue: Queue,
    worker: Worker,
    taker: Taker,
    metrics: Metrics,
    webhooks: Webhooks,
    settings: WorkSettings,
}

impl App {
    /// Puts the parts together; `instance` is this process among its replicas, `provider` how the provider is called.
    ///
    /// # Errors
    /// When the configuration contradicts itself.
    pub fn build(
        config: &Config,
        instance: &str,
        pool: PgPool,
        bus: Bus,
        provider: &Destination<()>,
    ) -> Result<Self, BoxError> {
        config.check(&provider.policy())?;
        let settings = config.work;
        let metrics = Metrics::new();
        let outbox = Outbox::new(pool.clone(), OUTBOX_PARTITIONS);
        let lease = LeaseSettings { instance: instance.to_owned(), length: settings.lease };
        let store = Store::new(pool, outbox.clone(), lease);
        let queue = Queue::new(settings.queue_max, settings.lease);
        let worker = Worker::new(
            store.clone(),
            Provider::try_new(&config.provider, provider.promising())?,
            Cards::new(bus.clone()),
            Backoff::try_new(settings.retry_min, settings.retry_max)?,
            metrics.clone(),
        );
        let webhooks = Webhooks {
            store: store.clone(),
            queue: queue.clone(),
            verifier: Verifier::new(
                config.webhooks.secret.iter().map(Secret::expose),
                config.webhooks.tolerance,
            ),
            metrics: metrics.clone(),
        };
        let taker = Taker::new(store.clone(), queue.clone(), metrics.clone());
        Ok(Self { bus, store, outbox, queue, worker, taker, metrics, webhooks, settings })
    }

    /// The listener for the provider.
    ///
    /// # Errors
    /// When its limits are not valid.
    pub fn router(&self) -> Result<Router, BoxError> {
        Ok(http::router(self.webhooks.clone())?)
    }

    /// Takes up at once what a dead predecessor of the same name had leased.
    ///
    /// # Errors
    /// Of the database.
    pub async fn begin(&self) -> Result<(), BoxError> {
        let released = self.store.release_all().await?;
        tracing::info!(released, "operations of an earlier run are due");
        Ok(())
    }

    /// Works off what was taken, until `shutdown`.
    ///
    /// # Errors
    /// None while it runs; so for all parts.
    pub async fn work(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        self.queue.work(self.worker, self.settings.workers, shutdown).await
    }

    /// Looks for operations that are due, until `shutdown`.
    ///
    /// # Errors
    /// See [`work`](Self::work).
    pub async fn fill(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        self.queue.fill(self.store, shutdown).await
    }

    /// Takes commands, until `shutdown`.
    ///
    /// # Errors
    /// See [`work`](Self::work).
    pub async fn take(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        self.taker.run(self.bus, shutdown).await
    }

    /// Publishes results, until `shutdown`.
    ///
    /// # Errors
    /// See [`Relay::run`].
    pub async fn publish(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        Relay::new(self.outbox, self.bus, RelaySettings::default()).run(shutdown).await
    }

    /// Lays aside commands that were delivered too often, until `shutdown`.
    ///
    /// # Errors
    /// See [`work`](Self::work).
    pub async fn keep_dead_letters(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        DeadLetterKeeper::new(self.bus, CMD_PAYMENTS, SERVICE).run(shutdown).await
    }

    /// Counts what is open and forgets what is old, until `shutdown`.
    ///
    /// # Errors
    /// See [`work`](Self::work).
    pub async fn keep_house(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        housekeeping::run(self.store, self.metrics, shutdown).await
    }
}
