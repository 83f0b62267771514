//! The pool: connections that are checked before they are lent and dropped when they are of no more use.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Executor, Row};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::connection::{Live, silent};
use crate::{PgConnection, Transaction};

/// A connection that was idle for longer is checked before it is lent.
const TRUST_IDLE: Duration = Duration::from_secs(1);
/// How much longer than the server's own limit the client waits for an answer: a round trip on a busy machine.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);

/// The limits of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at most.
    pub connections: u32,
    /// How long a caller waits for a connection.
    pub wait: Duration,
    /// How long the server works on a statement; it enforces this itself, as `statement_timeout`.
    pub statement: Duration,
}

/// A pool whose every await ends. A handle: clones share the connections.
#[derive(Debug, Clone)]
pub struct PgPool {
    pool: sqlx::PgPool,
    /// How long a statement, or giving a connection back, may take before the connection counts as dead.
    within: Duration,
    /// Owns the tasks that give connections back.
    returning: TaskTracker,
    /// Connections that callers have. sqlx also counts those that are only being opened.
    lent: Arc<AtomicU32>,
}

impl PgPool {
    /// A pool that connects when it is used. A connection that was idle is closed when its server is gone or takes no
    /// writes any more, so that after a failover none stays with the old primary.
    pub fn connect_lazy_with(limits: Limits, options: PgConnectOptions) -> Self {
        // What is left of the wait is enough to connect once more.
        let check_max = limits.wait / 2;
        let pool = PgPoolOptions::new()
            .max_connections(limits.connections)
            .acquire_timeout(limits.wait)
            // sqlx would check before every loan, a round trip each time; a connection used a moment ago is trusted.
            .test_before_acquire(false)
            .before_acquire(move |connection, usage| {
                Box::pin(async move {
                    if usage.idle_for <= TRUST_IDLE {
                        return Ok(true);
                    }
                    let checked = timeout(check_max, is_writable(connection)).await;
                    checked.unwrap_or_else(|_elapsed| Err(silent(check_max)))
                })
            })
            .connect_lazy_with(options);
        Self::new(pool, limits.statement + ROUND_TRIP_MAX)
    }

    /// Bounds the statements of an existing sqlx pool.
    pub fn new(pool: sqlx::PgPool, within: Duration) -> Self {
        Self { pool, within, returning: TaskTracker::new(), lent: Arc::default() }
    }

    /// Lends a connection.
    ///
    /// # Errors
    /// Those of connecting, and [`sqlx::Error::PoolTimedOut`] when none is free in time.
    pub async fn acquire(&self) -> sqlx::Result<PgConnection> {
        Ok(self.lend(Live::Lent(self.pool.acquire().await?)))
    }

    /// Lends a connection if one is idle. It is not checked.
    pub fn try_acquire(&self) -> Option<PgConnection> {
        Some(self.lend(Live::Lent(self.pool.try_acquire()?)))
    }

    /// Opens a connection besides those of the pool, for what lives as long as its session: locks and notifications.
    ///
    /// # Errors
    /// Those of connecting.
    pub async fn connect(&self) -> sqlx::Result<PgConnection> {
        let connecting = timeout(self.within, self.pool.connect_options().connect()).await;
        let connection = connecting.unwrap_or_else(|_elapsed| Err(silent(self.within)))?;
        Ok(self.lend(Live::Own(connection)))
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// See [`acquire`](Self::acquire).
    pub async fn begin(&self) -> sqlx::Result<Transaction> {
        self.begin_with("BEGIN").await
    }

    /// Begins a transaction by this statement, such as `BEGIN READ ONLY`.
    ///
    /// # Errors
    /// See [`acquire`](Self::acquire).
    pub async fn begin_with(&self, sql: &'static str) -> sqlx::Result<Transaction> {
        Transaction::begin_with(self.acquire().await?, sql).await
    }

    /// Whether the server answers and takes writes. A pool whose connections are all in use is a busy one, not a broken
    /// one: taking a busy node out of service would only make the others busier.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self) -> sqlx::Result<()> {
        let mut connection = match self.try_acquire() {
            Some(connection) => connection,
            None if self.lent() >= self.max_connections() => return Ok(()),
            None => match self.acquire().await {
                Err(sqlx::Error::PoolTimedOut) if self.lent() > 0 => return Ok(()),
                // Returns the reason.
                Err(sqlx::Error::PoolTimedOut) => self.connect().await?,
                acquired => acquired?,
            },
        };
        if connection.bounded(|raw| Box::pin(is_writable(raw))).await? {
            return Ok(());
        }
        connection.discard();
        Err(read_only())
    }

    /// Closes all connections, after waiting for those that are lent.
    pub async fn close(&self) {
        let closed = async {
            self.pool.close().await;
            self.returning.close();
            self.returning.wait().await;
        };
        if timeout(self.within, closed).await.is_err() {
            tracing::warn!(waited = ?self.within, "connections to the database were not closed in time");
        }
    }

    /// How it connects.
    pub fn connect_options(&self) -> Arc<PgConnectOptions> {
        self.pool.connect_options()
    }

    /// Connections that there are.
    pub fn size(&self) -> u32 {
        self.pool.size()
    }

    /// Of them, those that are idle.
    pub fn num_idle(&self) -> usize {
        self.pool.num_idle()
    }

    /// Connections that there may be.
    pub fn max_connections(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    fn lent(&self) -> u32 {
        self.lent.load(Ordering::Relaxed)
    }

    pub(crate) fn within(&self) -> Duration {
        self.within
    }

    fn lend(&self, live: Live) -> PgConnection {
        PgConnection::new(live, self.within, self.returning.clone(), Arc::clone(&self.lent))
    }
}

fn read_only() -> sqlx::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the database takes no writes").into()
}

/// One round trip, which also shows that the connection lives. False on a standby.
async fn is_writable(connection: &mut sqlx::PgConnection) -> sqlx::Result<bool> {
    let row = connection.fetch_one("SHOW transaction_read_only").await?;
    Ok(row.try_get::<&str, _>(0)? == "off")
}
