//! Duties that one replica at a time does: whoever has the advisory lock.
//!
//! Two leaders at once would only do work twice, because every change locks its rows; the lock is there to save that
//! work. It lives on a connection of its own. A replica that is frozen keeps its connection and would keep the lock,
//! so the server ends the connection of a leader that is silent for some seconds.

use std::time::Duration;

use stampede_postgres::{PgConnection, PgPool};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Between two signs of life of a leader, and between two tries to become one.
const PULSE: Duration = Duration::from_secs(1);
/// The first half of the locks' keys, `invt` in ASCII.
const LOCK_CLASS: i32 = 0x696e_7674;

/// What a leader is chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Publishing blocks and layouts.
    Publish,
    /// Ending holds whose time is over.
    Sweep,
}

impl Duty {
    const fn lock(self) -> i32 {
        match self {
            Self::Publish => 1,
            Self::Sweep => 2,
        }
    }
}

/// Does `work`, which never ends by itself, whenever this replica leads, until `shutdown`. It is dropped in the middle
/// when the lead is lost.
pub async fn lead<Fut>(pool: &PgPool, duty: Duty, shutdown: &CancellationToken, work: impl Fn() -> Fut)
where
    Fut: Future<Output = ()>,
{
    let lead = async {
        loop {
            if let Err(error) = term(pool, duty, &work).await {
                tracing::warn!(?duty, error = &error as &dyn std::error::Error, "the lead is lost");
            }
            sleep(PULSE).await;
        }
    };
    shutdown.run_until_cancelled(lead).await;
}

/// As long as one connection lives.
async fn term<Fut>(pool: &PgPool, duty: Duty, work: &impl Fn() -> Fut) -> Result<(), sqlx::Error>
where
    Fut: Future<Output = ()>,
{
    let mut connection = pool.connect().await?;
    sqlx::query("SET idle_session_timeout = '5s'").execute(&mut connection).await?;
    while !try_lock(&mut connection, duty).await? {
        sleep(PULSE).await;
    }
    tracing::info!(?duty, "this replica leads");
    tokio::select! {
        () = work() => Ok(()),
        lost = pulse(&mut connection) => lost,
    }
}

async fn try_lock(connection: &mut PgConnection, duty: Duty) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
        .bind(LOCK_CLASS)
        .bind(duty.lock())
        .fetch_one(connection)
        .await
}

/// Shows that this replica lives, until the connection does not.
async fn pulse(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    loop {
        sleep(PULSE).await;
        connection.ping().await?;
    }
}
