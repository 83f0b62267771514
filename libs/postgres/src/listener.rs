//! Notifications, over a connection that proves that it lives.

use std::io;
use std::time::Duration;

use sqlx::Executor;
use sqlx::postgres::{PgListener, PgNotification, PgPoolOptions};
use tokio::time::timeout;

use crate::PgPool;
use crate::connection::silent;

/// After this silence the connection is checked with a query: a listener only waits, so nothing else would show that the
/// server is gone.
const PULSE: Duration = Duration::from_secs(5);

/// Listens to one channel over a connection of its own.
#[derive(Debug)]
pub struct Listener {
    listener: PgListener,
    within: Duration,
}

impl Listener {
    /// Listens to `channel` of the pool's database.
    ///
    /// # Errors
    /// Those of connecting.
    pub async fn connect(pool: &PgPool, channel: &str) -> sqlx::Result<Self> {
        let within = pool.within();
        // Not one of the pool's: sqlx gives a listener's connection back without a bound.
        let own = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(within)
            .connect_lazy_with(pool.connect_options().as_ref().clone());
        let connecting = async {
            let mut listener = PgListener::connect_with(&own).await?;
            listener.ignore_pool_close_event(true);
            // An error for the caller: what was notified meanwhile is lost.
            listener.eager_reconnect(false);
            listener.listen(channel).await?;
            Ok(listener)
        };
        let listener = timeout(within, connecting).await.unwrap_or_else(|_elapsed| Err(silent(within)))?;
        Ok(Self { listener, within })
    }

    /// The next notification. Can be dropped while it waits.
    ///
    /// # Errors
    /// When the connection is lost; this listener is then of no more use.
    pub async fn recv(&mut self) -> sqlx::Result<PgNotification> {
        loop {
            match timeout(PULSE, self.listener.try_recv()).await {
                Ok(Ok(Some(notification))) => return Ok(notification),
                Ok(Ok(None)) => return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
                Ok(Err(error)) => return Err(error),
                // What is notified meanwhile is kept for the next round.
                Err(_elapsed) => self.show_life().await?,
            }
        }
    }

    async fn show_life(&mut self) -> sqlx::Result<()> {
        let answer = timeout(self.within, self.listener.execute("SELECT")).await;
        answer.unwrap_or_else(|_elapsed| Err(silent(self.within)))?;
        Ok(())
    }
}
