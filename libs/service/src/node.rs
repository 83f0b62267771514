//! The node: one process of one service.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use sqlx::migrate::Migrator;
use stampede_blueprint::{Blueprint, Database};
use stampede_bus::Bus;
use stampede_contracts::{Heartbeat, Timestamp};
use stampede_deadline::Clock;
use stampede_postgres::PgPool;
use stampede_resilience::{Destination, Destinations};
use stampede_supervisor::{BoxError, RestartPolicy, Supervisor};
use stampede_telemetry::Telemetry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Admin, Version};
use crate::descriptors::Descriptors;
use crate::http::server::{Limits, Server};
use crate::{Command, Env, Error, Identity, Readiness, Settings, database};

/// Everything a process has before it does its own work, and what ends it in order.
///
/// Two tokens say that the end has come. [`draining`](Self::draining) is cancelled first: what never ends by itself,
/// such as a stream of events to a client, ends on it. [`shutdown`](Self::shutdown) is cancelled when the last
/// request has been answered: whatever requests depend on, such as relays and consumers, ends on it.
#[derive(Debug)]
pub struct Node {
    pub(crate) settings: Settings,
    pub(crate) supervisor: Supervisor,
    pub(crate) tasks: TaskTracker,
    pub(crate) draining: CancellationToken,
    // Cancelled when the listeners take no more requests.
    pub(crate) stop: CancellationToken,
    // Owns the listeners beside the main one.
    pub(crate) beside: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    pub(crate) readiness: Readiness,
    pub(crate) telemetry: Telemetry,
    pub(crate) pools: Mutex<Vec<PgPool>>,
    pub(crate) buses: Mutex<Vec<Bus>>,
    pub(crate) admin_more: Arc<OnceLock<Router>>,
    pub(crate) blueprint: Blueprint,
    pub(crate) destinations: Destinations,
    service: &'static str,
    version: &'static str,
    env: Env,
    command: Command,
    restart_policy: RestartPolicy,
    started_at: Timestamp,
    admin: Option<SocketAddr>,
    // Owns the task of the admin listener, which answers until the very end.
    _admin_task: JoinSet<()>,
    // Owns the task that ends the process when it is asked to before it serves.
    pub(crate) not_serving: JoinSet<()>,
}

impl Node {
    /// Starts a node: reads its blueprint, the environment and the command, installs the TLS provider and telemetry,
    /// and, unless it is a command that ends by itself, opens the admin listener.
    ///
    /// # Errors
    /// [`Error`] says which key is missing or wrong, or what could not be opened.
    pub fn start(identity: Identity) -> Result<Self, Error> {
        Self::with_env(identity, Env::from_process(), Command::from_args(std::env::args().skip(1)))?
            .end_when_asked()
    }

    /// Starts a node that does not use messaging, and so needs no `NATS_PASSWORD`.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn start_without_messaging(identity: Identity) -> Result<Self, Error> {
        let env = Env::from_process();
        let settings = Settings::without_messaging(&env, identity.service)?;
        Self::build(identity, env, settings, Command::from_args(std::env::args().skip(1)))?.end_when_asked()
    }

    /// Starts a node in an environment made by a test. Several of them share the telemetry of the process.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn with_env(identity: Identity, env: Env, command: Command) -> Result<Self, Error> {
        let settings = match command {
            // Migrations talk to the database only; whoever runs them need not know other secrets.
            Command::Migrate => Settings::without_messaging(&env, identity.service)?,
            Command::Serve | Command::Other(_) => Settings::from_env(&env, identity.service)?,
        };
        Self::build(identity, env, settings, command)
    }

    fn build(identity: Identity, env: Env, mut settings: Settings, command: Command) -> Result<Self, Error> {
        let Identity { service, version, blueprint } = identity;
        let blueprint = Blueprint::parse(blueprint)?;
        if blueprint.service != service {
            return Err(Error::OthersBlueprint { service, found: blueprint.service });
        }
        let _runtime = tokio::runtime::Handle::try_current()?;
        // It fails when the process has one already, and then that one is as good.
        let _already_there = rustls::crypto::ring::default_provider().install_default();
        let telemetry = telemetry(service, version, &settings)?;
        let descriptors = Descriptors::raised();
        settings.fit(descriptors.of_a_listener());
        // Not before: what shows itself to a meter that nobody reads yet is never seen.
        let destinations = Destinations::try_new(blueprint.policies(), &Clock::system())?;
        let readiness = Readiness::default();
        let mut admin_task = JoinSet::new();
        let admin_more = Arc::default();
        let admin = match command {
            Command::Serve => {
                let version = Version { service, version, instance: settings.instance.clone() };
                let shown = Admin {
                    readiness: readiness.clone(),
                    metrics: telemetry.metrics(),
                    version,
                    more: Arc::clone(&admin_more),
                };
                let connections_max = admin::CONNECTIONS_MAX.min(descriptors.of_the_admin());
                Some(start_admin(&settings, connections_max, shown, &mut admin_task)?)
            }
            Command::Migrate | Command::Other(_) => None,
        };
        tracing::info!(%command, version, admin = admin.map(tracing::field::display), "starting");
        let shutdown = CancellationToken::new();
        Ok(Self {
            supervisor: Supervisor::new(shutdown.clone()).waiting_out(is_outage),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
            beside: TaskTracker::new(),
            shutdown,
            readiness,
            telemetry,
            pools: Mutex::default(),
            buses: Mutex::default(),
            admin_more,
            blueprint,
            destinations,
            service,
            version,
            env,
            settings,
            command,
            restart_policy: default_restart_policy()?,
            started_at: Timestamp::now(),
            admin,
            _admin_task: admin_task,
            not_serving: JoinSet::new(),
        })
    }

    /// The environment, for the service's own `config.rs`.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// What all services can be told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Name of the service.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// What the process was started for.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// Cancelled as soon as draining begins; cancelling it begins the draining, as SIGTERM does.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Cancelled when the last request has been answered, or the drain timeout is over.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Owned background tasks. They are waited for at the end, for a bounded time, and end on
    /// [`shutdown`](Self::shutdown).
    pub fn tasks(&self) -> TaskTracker {
        self.tasks.clone()
    }

    /// Whether the node should get work.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// The bound address of the admin listener; nothing for a command that ends by itself.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Keeps a child running until [`shutdown`](Self::shutdown): five restarts within a minute, then the node drains
    /// and the process ends with a failure, so that whoever started it can start it afresh. A child that fails because
    /// the database or NATS is unavailable is started again as well, later and later, and never counted: another process
    /// would only wait for the same outage to end.
    pub fn supervise<F, Fut>(&self, name: impl Into<String>, factory: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.supervisor.spawn(name, self.restart_policy, factory);
    }

    /// What the service says of itself.
    pub fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    /// Whom it calls, by the policies of its blueprint and whatever replaces them while it runs.
    pub fn destinations(&self) -> &Destinations {
        &self.destinations
    }

    /// One of them.
    ///
    /// # Errors
    /// [`Error::NoDestination`] when the blueprint says nothing of it.
    pub fn destination(&self, name: &str) -> Result<Destination<()>, Error> {
        self.destinations.get(name).ok_or_else(|| Error::NoDestination { name: name.to_owned() })
    }

    /// Opens the pool for requests to the service's own database, waiting for it if need be, and sees to it that its
    /// schema has all of `migrator`. In development missing migrations are applied; in production they are waited for,
    /// because `migrate` applies them. The pool is part of [`readiness`](Self::readiness) from now on.
    ///
    /// # Errors
    /// [`Error`] when there is no `DATABASE_URL`, or after `STARTUP_TIMEOUT_MS`.
    pub async fn database(&self, migrator: &Migrator) -> Result<PgPool, Error> {
        database::wait_for(&self.settings, self.database_policy()?).await?;
        let pool = self.pool(database::REQUESTS)?;
        database::ensure_schema(&pool, migrator, &self.settings).await?;
        let checked = pool.clone();
        self.readiness.check("database", move || {
            let pool = checked.clone();
            async move { pool.check().await }
        });
        Ok(pool)
    }

    /// A further pool of the service's own database, for work that must not take connections from requests, nor wait
    /// for theirs. Its size stands in the blueprint under this name.
    ///
    /// # Errors
    /// [`Error`] when there is no `DATABASE_URL`, or the blueprint knows no such pool.
    pub fn pool(&self, name: &str) -> Result<PgPool, Error> {
        let pool = database::open(&self.settings, self.database_policy()?, name)?;
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).push(pool.clone());
        Ok(pool)
    }

    fn database_policy(&self) -> Result<&Database, Error> {
        self.blueprint.database.as_ref().ok_or_else(|| Error::NoPool { pool: database::REQUESTS.to_owned() })
    }

    /// Applies the migrations that the database lacks.
    ///
    /// # Errors
    /// [`Error`] when the database cannot be reached or a migration fails.
    pub async fn migrate(&self, migrator: &Migrator) -> Result<(), Error> {
        database::wait_for(&self.settings, self.database_policy()?).await?;
        database::migrate(migrator, &self.settings).await?;
        tracing::info!("the schema is up to date");
        Ok(())
    }

    /// Binds the address at which the service takes requests. Nothing is accepted before [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub async fn listen(&self) -> Result<(TcpListener, SocketAddr), Error> {
        self.listen_on(self.settings.http_listen).await
    }

    /// What this node says of itself once a second while it serves; `http` is the bound address, if it has one.
    pub fn heartbeat(&self, http: Option<SocketAddr>) -> Heartbeat {
        let host = self.settings.advertise.as_ref();
        let told = |bound: SocketAddr| host.map_or_else(|| bound.to_string(), |host| host.at(bound));
        Heartbeat {
            service: self.service.to_owned(),
            instance: self.settings.instance.clone(),
            version: self.version.to_owned(),
            address: http.map(told),
            admin: self.admin.map(told).unwrap_or_default(),
            ready: true,
            started_at: self.started_at,
        }
    }
}

/// Whether a child failed because of something outside of the process.
fn is_outage(error: &(dyn std::error::Error + 'static)) -> bool {
    stampede_postgres::is_outage(error) || stampede_bus::is_outage(error)
}

fn telemetry(service: &str, version: &str, settings: &Settings) -> Result<Telemetry, Error> {
    let mut wanted = stampede_telemetry::Settings::new(service, version, &settings.instance);
    wanted.log_format = settings.log_format;
    wanted.log_filter.clone_from(&settings.log_filter);
    wanted.otlp_endpoint.clone_from(&settings.otlp_endpoint);
    wanted.sample_ratio = settings.trace_sample_ratio;
    match Telemetry::installed() {
        Some(telemetry) => Ok(telemetry),
        None => Ok(stampede_telemetry::init(&wanted)?),
    }
}

fn start_admin(
    settings: &Settings,
    connections_max: usize,
    shown: Admin,
    task: &mut JoinSet<()>,
) -> Result<SocketAddr, Error> {
    let address = settings.admin_listen;
    let failed = |source| Error::Listen { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    let limits = Limits::of(settings).at_most(connections_max);
    let server = Server::new("admin", listener, admin::router(shown), limits);
    task.spawn(server.run(CancellationToken::new()));
    Ok(bound)
}

fn default_restart_policy() -> Result<RestartPolicy, stampede_supervisor::InvalidPolicy> {
    let (within, min, max) = (Duration::from_secs(60), Duration::from_millis(100), Duration::from_secs(5));
    RestartPolicy::try_new(5, within, min, max)
}
