//! A world for each test: Postgres, NATS, the provider, `orders`, and replicas of the service.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Url;
use stampede_blueprint::Blueprint;
use stampede_bus::{BoxError, Bus, Settings};
use stampede_contracts::topology::{CMD_PAYMENTS, User, users};
use stampede_contracts::{StepId, Timestamp};
use stampede_deadline::Clock;
use stampede_outbox::Outbox;
use stampede_payments::app::App;
use stampede_payments::clients::{Cards, Provider, ProviderSettings};
use stampede_payments::config::{Config, IDENTITY, OUTBOX_PARTITIONS, WebhookSettings, WorkSettings};
use stampede_payments::metrics::Metrics;
use stampede_payments::reconcile::{Report, reconcile};
use stampede_payments::store::{LeaseSettings, MIGRATOR, Store};
use stampede_payments::worker::Worker;
use stampede_psp_sim::app as psp;
use stampede_psp_sim::config::Config as PspConfig;
use stampede_psp_sim::knobs::Knobs;
use stampede_psp_sim::provider::Provider as Sim;
use stampede_psp_sim::webhooks::Target;
use stampede_resilience::{Destination, DestinationPolicy};
use stampede_retry::Backoff;
use stampede_service::Secret;
use stampede_testkit::{Database, Nats, fresh_database, provision};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::orders::Orders;

/// Longer than anything that is waited for, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const API_KEY: &str = "sk_test";
pub const WEBHOOK_SECRET: &str = "whisper";

pub struct World {
    pub orders: Orders,
    pub operator: Bus,
    /// The provider, to look into it and to turn its knobs.
    pub sim: Sim,
    pub database: Database,
    pub psp_database: Database,
    pub webhook_url: String,
    /// What replicas are told.
    pub config: Config,
    /// How long one of their calls of the provider may take.
    pub attempt_ms: u64,
    buses: Vec<Bus>,
    webhook_listener: Option<std::net::TcpListener>,
    nats: Nats,
    _psp: Vec<AbortOnDropHandle<()>>,
}

/// A process of the service, as far as a test needs one.
pub struct Replica {
    shutdown: CancellationToken,
    parts: Vec<AbortOnDropHandle<()>>,
}

impl Replica {
    /// Ends in order, as after SIGTERM.
    pub async fn stop(self) {
        self.shutdown.cancel();
        for part in self.parts {
            tokio::time::timeout(PATIENCE, part).await.unwrap().unwrap();
        }
    }

    /// Ends at once, as after SIGKILL.
    pub fn kill(self) {
        drop(self);
    }
}

impl World {
    /// A world with one replica.
    pub async fn start() -> (Self, Replica) {
        let mut world = Self::new().await;
        let replica = world.replica("payments-1").await;
        (world, replica)
    }

    /// A world in which nobody works yet.
    pub async fn new() -> Self {
        // It fails when another test of the process was faster, and then that one is as good.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let nats = Nats::start_with_config(&server_config()).await;
        let operator = connect(&nats, "operator", "operator-1").await;
        provision(operator.jetstream()).await;
        let orders_bus = connect(&nats, "orders", "orders-1").await;
        let orders = Orders::start(orders_bus.clone());

        let webhook_listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        webhook_listener.set_nonblocking(true).unwrap();
        let webhook_url = format!("http://{}/webhooks", webhook_listener.local_addr().unwrap());
        let psp_database = fresh_database("psp", &psp::MIGRATOR).await;
        let (sim, psp_url, serving) = start_psp(&psp_database, &webhook_url).await;
        let database = fresh_database("payments", &MIGRATOR).await;
        let config = config(&psp_url);
        Self {
            orders,
            operator,
            sim,
            database,
            psp_database,
            webhook_url,
            config,
            attempt_ms: 500,
            buses: vec![orders_bus],
            webhook_listener: Some(webhook_listener),
            nats,
            _psp: serving,
        }
    }

    /// Starts a process of the service. The first one gets the webhooks.
    pub async fn replica(&mut self, instance: &str) -> Replica {
        let bus = connect(&self.nats, "payments", instance).await;
        self.buses.push(bus.clone());
        let (pool, provider) = (self.database.pool().clone(), destination(self.attempt_ms));
        let app = App::build(&self.config, instance, pool, bus, &provider).unwrap();
        app.begin().await.unwrap();
        let shutdown = CancellationToken::new();
        let part =
            |running: Running| AbortOnDropHandle::new(tokio::spawn(async move { running.await.unwrap() }));
        let mut parts = vec![
            part(Box::pin(app.clone().publish(shutdown.clone()))),
            part(Box::pin(app.clone().work(shutdown.clone()))),
            part(Box::pin(app.clone().fill(shutdown.clone()))),
            part(Box::pin(app.clone().take(shutdown.clone()))),
            part(Box::pin(app.clone().keep_dead_letters(shutdown.clone()))),
            part(Box::pin(app.clone().keep_house(shutdown.clone()))),
        ];
        if let Some(listener) = self.webhook_listener.take() {
            let (listener, router) = (TcpListener::from_std(listener).unwrap(), app.router().unwrap());
            let stop = shutdown.clone().cancelled_owned();
            let serving = async { Ok(axum::serve(listener, router).with_graceful_shutdown(stop).await?) };
            parts.push(part(Box::pin(serving)));
        }
        Replica { shutdown, parts }
    }

    /// Store and worker without anything that runs by itself.
    pub async fn bare_worker(&mut self) -> (Store, Worker) {
        let bus = connect(&self.nats, "payments", "bare").await;
        self.buses.push(bus.clone());
        let pool = self.database.pool().clone();
        let work = self.config.work;
        let lease = LeaseSettings { instance: "bare".to_owned(), length: work.lease };
        let store = Store::new(pool.clone(), Outbox::new(pool, OUTBOX_PARTITIONS), lease);
        let provider = Provider::try_new(&self.config.provider, destination(self.attempt_ms)).unwrap();
        let backoff = Backoff::try_new(work.retry_min, work.retry_max).unwrap();
        (store.clone(), Worker::new(store, provider, Cards::new(bus), backoff, Metrics::new()))
    }

    pub fn set(&self, knobs: Knobs) {
        self.sim.panel().set(knobs).unwrap();
    }

    /// `kind status` of every row of the provider's ledger.
    pub async fn psp_ledger(&self) -> Vec<String> {
        let rows = sqlx::query_as("SELECT kind, status FROM operation ORDER BY seq");
        let rows: Vec<(String, String)> = rows.fetch_all(self.psp_database.pool()).await.unwrap();
        rows.into_iter().map(|(kind, status)| format!("{kind} {status}")).collect()
    }

    /// The status of a step at the provider.
    pub async fn psp_status(&self, step: StepId) -> Option<String> {
        let status = sqlx::query_scalar("SELECT status FROM operation WHERE key = $1").bind(step.to_string());
        status.fetch_optional(self.psp_database.pool()).await.unwrap()
    }

    /// How often a step was worked on; nothing when it was not taken yet.
    pub async fn attempts(&self, step: StepId) -> Option<i32> {
        let attempts =
            sqlx::query_scalar("SELECT attempts FROM operation WHERE step_id = $1").bind(step.uuid());
        attempts.fetch_optional(self.database.pool()).await.unwrap()
    }

    /// A number out of the service's database.
    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.database.pool()).await.unwrap()
    }

    /// Debits less credits of an account.
    pub async fn balance(&self, account: &str) -> i64 {
        let sum = sqlx::query_scalar("SELECT coalesce(sum(amount), 0)::bigint FROM entry WHERE account = $1");
        sum.bind(account).fetch_one(self.database.pool()).await.unwrap()
    }

    /// Commands that lie in the queue, delivered or not.
    pub async fn queued(&self) -> u64 {
        let stream = self.operator.jetstream().get_stream(CMD_PAYMENTS).await.unwrap();
        stream.cached_info().state.messages
    }

    pub async fn reconcile(&self, min_age: Duration) -> Report {
        let provider = Provider::try_new(&self.config.provider, destination(self.attempt_ms)).unwrap();
        reconcile(self.database.pool(), &provider, min_age, Timestamp::now()).await.unwrap()
    }

    /// What has to hold at the end of every test.
    pub async fn check(&self) {
        let report = self.reconcile(Duration::ZERO).await;
        assert!(report.agrees(), "{report}");
        assert_eq!(self.count("SELECT coalesce(sum(amount), 0)::bigint FROM entry").await, 0);
        for bus in &self.buses {
            assert_eq!(bus.violations(), 0, "a right is missing in the topology");
        }
    }
}

type Running = std::pin::Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// The provider, as the blueprint calls it, with another patience.
fn destination<G>(attempt_ms: u64) -> Destination<G> {
    let blueprint = Blueprint::parse(IDENTITY.blueprint).unwrap();
    let policy = DestinationPolicy { attempt_ms, ..blueprint.calls["provider"].policy };
    Destination::try_new("provider", &policy, Clock::system()).unwrap()
}

fn config(psp_url: &str) -> Config {
    Config {
        provider: ProviderSettings { url: Url::parse(psp_url).unwrap(), api_key: Secret::new(API_KEY) },
        work: WorkSettings {
            workers: 16,
            queue_max: 64,
            lease: Duration::from_secs(6),
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_millis(500),
        },
        webhooks: WebhookSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            secret: Secret::new(WEBHOOK_SECRET).into(),
            tolerance: Duration::from_secs(300),
        },
    }
}

async fn start_psp(database: &Database, webhook_url: &str) -> (Sim, String, Vec<AbortOnDropHandle<()>>) {
    let webhooks = Target { url: webhook_url.parse().unwrap(), secret: Secret::new(WEBHOOK_SECRET).into() };
    let config = PspConfig {
        api_key: Secret::new(API_KEY).into(),
        tokens_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        tokens_url: None,
        webhooks: Some(webhooks),
        max_in_flight: Duration::from_secs(4),
    };
    let app = psp::build(database.pool().clone(), &config, TaskTracker::new()).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, app.api).await.unwrap() });
    let sender = app.sender.unwrap();
    let sending = tokio::spawn(async move { sender.run(CancellationToken::new()).await.unwrap() });
    (app.provider, url, vec![AbortOnDropHandle::new(serving), AbortOnDropHandle::new(sending)])
}

async fn connect(nats: &Nats, user: &str, instance: &str) -> Bus {
    let settings = Settings {
        url: nats.url(),
        user: user.to_owned(),
        password: user.to_owned(),
        service: user.to_owned(),
        instance: instance.to_owned(),
    };
    Bus::connect(settings).await.unwrap()
}

/// The users of a real run with their rights.
fn server_config() -> String {
    // JSON is a subset of the server's own language.
    let list = |subjects: Vec<String>| serde_json::to_string(&subjects).unwrap();
    let user = |User { name, publish, subscribe, allow_responses }: User| {
        let (publish, subscribe) = (list(publish), list(subscribe));
        let rights =
            format!("publish: {publish}, subscribe: {subscribe}, allow_responses: {allow_responses}");
        format!("{{ user: {name}, password: {name}, permissions: {{ {rights} }} }}\n")
    };
    format!("authorization {{ users: [\n{}] }}\n", users().into_iter().map(user).collect::<String>())
}
