//! One connection: every statement on it ends in time, and one that is of no more use is never lent again.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{Connection, Executor, Postgres};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::Failure;

/// A connection that a [`PgPool`](crate::PgPool) lent or opened.
pub struct PgConnection {
    /// Empty only while it is dropped.
    live: Option<Live>,
    within: Duration,
    returning: TaskTracker,
    /// How many its pool has lent.
    lent: Arc<AtomicU32>,
    is_useless: bool,
    pub(crate) in_transaction: bool,
}

pub(crate) enum Live {
    /// Goes back to its pool.
    Lent(PoolConnection<Postgres>),
    /// Ends with its session.
    Own(sqlx::PgConnection),
}

impl PgConnection {
    pub(crate) fn new(live: Live, within: Duration, returning: TaskTracker, lent: Arc<AtomicU32>) -> Self {
        if matches!(live, Live::Lent(_)) {
            lent.fetch_add(1, Ordering::Relaxed);
        }
        Self { live: Some(live), within, returning, lent, is_useless: false, in_transaction: false }
    }

    /// A round trip.
    ///
    /// # Errors
    /// When the connection is dead.
    pub async fn ping(&mut self) -> sqlx::Result<()> {
        self.bounded(|raw| Box::pin(raw.ping())).await
    }

    /// Closes it when it is dropped, instead of lending it again.
    pub(crate) fn discard(&mut self) {
        self.is_useless = true;
    }

    /// What every statement goes through. sqlx cannot set options of its socket, neither keep-alive nor a user timeout,
    /// and they would not help against a server that is frozen while its kernel acknowledges. So the client bounds each
    /// wait for an answer, and drops the connection that gave none.
    pub(crate) fn bounded<'c: 'e, 'e, T: 'e>(
        &'c mut self,
        work: impl FnOnce(&'c mut sqlx::PgConnection) -> BoxFuture<'e, sqlx::Result<T>>,
    ) -> BoxFuture<'e, sqlx::Result<T>> {
        let Self { live, within, is_useless, .. } = self;
        let raw = match live {
            Some(Live::Lent(lent)) => &mut **lent,
            Some(Live::Own(own)) => own,
            None => return Box::pin(async { Err(sqlx::Error::WorkerCrashed) }),
        };
        let work = work(raw);
        Box::pin(async move {
            let result = timeout(*within, work).await.unwrap_or_else(|_elapsed| Err(silent(*within)));
            if let Err(error) = &result {
                *is_useless |= Failure::ends_connection(error);
            }
            result
        })
    }
}

impl Drop for PgConnection {
    fn drop(&mut self) {
        if matches!(self.live, Some(Live::Lent(_))) {
            self.lent.fetch_sub(1, Ordering::Relaxed);
        }
        match self.live.take() {
            // Without a pool it only has to be closed, and so has one that may hang; no caller waits for that.
            Some(Live::Own(own)) => drop(own),
            Some(Live::Lent(lent)) if self.is_useless => drop(lent.detach()),
            Some(Live::Lent(lent)) => {
                self.returning.spawn(give_back(lent, self.in_transaction, self.within));
            }
            None => {}
        }
    }
}

/// sqlx would do this itself, and wait without a bound for a server that is gone, while the pool lacks a connection.
/// Cut off, the connection is closed and its place in the pool is free.
async fn give_back(mut lent: PoolConnection<Postgres>, in_transaction: bool, within: Duration) {
    if in_transaction && !matches!(timeout(within, lent.execute("ROLLBACK")).await, Ok(Ok(_))) {
        drop(lent.detach());
    } else if timeout(within, lent.return_to_pool()).await.is_err() {
        tracing::warn!(waited = ?within, "a connection to the database is dead and was dropped");
    }
}

pub(crate) fn silent(within: Duration) -> sqlx::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("the database did not answer within {within:?}")).into()
}

impl fmt::Debug for PgConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgConnection")
            .field("is_useless", &self.is_useless)
            .field("in_transaction", &self.in_transaction)
            .finish_non_exhaustive()
    }
}
