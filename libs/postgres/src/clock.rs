//! The database's time, without a round trip for each look at it.

use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::types::time::OffsetDateTime;
use stampede_contracts::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::PgPool;

/// Between two readings. In that time a computer's oscillator drifts by less than a millisecond.
const READ_EVERY: Duration = Duration::from_secs(10);
/// A reading that took longer is discarded: it may be off by half of that.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(200);

/// The clock of the database, carried on by the process's own monotonic one. Replicas whose wall clocks differ agree on
/// it, and on what it was compared with in the database. A handle: clones share the reading.
#[derive(Debug, Clone)]
pub struct DatabaseClock(Arc<RwLock<Reading>>);

#[derive(Debug, Clone, Copy)]
struct Reading {
    time: Timestamp,
    at: Instant,
}

impl DatabaseClock {
    /// Reads the clock for the first time.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn read(pool: &PgPool) -> sqlx::Result<Self> {
        Ok(Self(Arc::new(RwLock::new(read(pool).await?.0))))
    }

    /// Now, for the database.
    pub fn now(&self) -> Timestamp {
        let Reading { time, at } = *self.0.read().unwrap_or_else(PoisonError::into_inner);
        time + at.elapsed()
    }

    /// Reads it again from time to time, until `shutdown`. While the database is unavailable the last reading counts.
    ///
    /// # Errors
    /// None.
    pub async fn follow(
        self,
        pool: PgPool,
        shutdown: CancellationToken,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut ticks = interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            match read(&pool).await {
                Ok((reading, took)) if took <= ROUND_TRIP_MAX => {
                    *self.0.write().unwrap_or_else(PoisonError::into_inner) = reading;
                }
                Ok((_, took)) => tracing::debug!(?took, "the database's clock was not read fast enough"),
                Err(error) => tracing::debug!(%error, "the database's clock cannot be read"),
            }
        }
        Ok(())
    }
}

/// The server looked at its clock at some time in between: in the middle, as NTP assumes.
async fn read(pool: &PgPool) -> sqlx::Result<(Reading, Duration)> {
    let mut connection = pool.acquire().await?;
    let asked = Instant::now();
    let time: OffsetDateTime =
        sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut connection).await?;
    let took = asked.elapsed();
    Ok((Reading { time: time.into(), at: asked + took / 2 }, took))
}
