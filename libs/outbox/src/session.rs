//! The relay's own connection: it holds the locks, hears notifications, reads and deletes.
//!
//! All of it goes over one connection on purpose. Who lost the locks has lost the means to read and delete too, so a
//! relay whose partitions were taken over cannot go on by mistake.
//!
//! A process that is frozen, or a machine that is cut off, keeps its connection and would keep its locks for ever. So
//! the server ends a session that was silent for some seconds, and a relay that lives says so in between.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgNotification, PgPoolOptions, PgRow};
use sqlx::types::time::OffsetDateTime;
use sqlx::{FromRow, Row as _};
use stampede_bus::Message;
use stampede_postgres::PgPool;
use tokio::time::{Instant, timeout};

use crate::batch::{Place, Row};
use crate::lanes::{Destination, Lanes};
use crate::partition::{Partition, Partitions};
use crate::{CHANNEL, Outbox};

/// The first half of the advisory locks' keys, `outb` in ASCII; the second is the partition.
const LOCK_CLASS: i32 = 0x6f75_7462;
/// Connecting, and every statement. A connection that is silent for longer is given up.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// After this silence the server ends the session and gives its locks to others.
const SILENCE_MAX_MS: u64 = 5_000;
/// Between two signs of life.
pub(crate) const PULSE: Duration = Duration::from_secs(1);
/// Says that partitions became free, in contrast to the empty notification for new rows.
const RELEASED: &str = "released";

/// Why a session ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The connection is gone, or the database said no.
    #[error("the connection to the outbox was lost")]
    Lost(#[from] sqlx::Error),
    /// Nothing comes any more.
    #[error("the outbox's database does not answer")]
    Silent,
    /// Nobody would ever publish these rows.
    #[error("the outbox holds rows of partition {found}, but there are only {configured}")]
    UnknownPartition { found: Partition, configured: usize },
}

/// The destination of a row, as the index `outbox_lane` has it.
macro_rules! destination {
    () => {
        r#"(split_part(subject, '.', 1) || '.' || split_part(subject, '.', 2)) COLLATE "C""#
    };
}

/// All destinations, each found by one step in the index, however many rows there are for it.
macro_rules! destinations {
    () => {
        concat!(
            "WITH RECURSIVE destination (name) AS ((SELECT ",
            destination!(),
            " FROM outbox ORDER BY 1 LIMIT 1) UNION ALL SELECT next.name FROM destination CROSS JOIN LATERAL (SELECT ",
            destination!(),
            " AS name FROM outbox WHERE ",
            destination!(),
            " > destination.name ORDER BY 1 LIMIT 1) AS next) ",
        )
    };
}

/// What a notification was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A process that does not hold the partition wrote rows.
    Stored,
    /// Another relay ended.
    Released,
}

/// The next messages to one destination.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) destination: Destination,
    /// In the order of their ids.
    pub(crate) rows: Vec<Row>,
    /// Whether there may be more.
    pub(crate) is_full: bool,
}

impl Window {
    /// Whether a lane may have rows in it: those of a full window may be behind its last row.
    pub(crate) fn may_have(&self, destination: &Destination, partition: Partition) -> bool {
        self.destination == *destination
            && (self.is_full || self.rows.iter().any(|row| row.place.partition == partition))
    }

    /// Windows from rows that are sorted by destination.
    fn of(mut rows: Vec<(String, Row)>, limit: u16) -> Vec<Self> {
        let mut windows = Vec::new();
        while let Some(name) = rows.last().map(|(name, _)| name.clone()) {
            let first = rows.partition_point(|(earlier, _)| *earlier < name);
            let rows: Vec<Row> = rows.split_off(first).into_iter().map(|(_, row)| row).collect();
            let is_full = rows.len() >= usize::from(limit);
            windows.push(Self { destination: name.into(), rows, is_full });
        }
        windows
    }
}

/// Lanes whose oldest message has waited for `at_least`.
pub(crate) async fn blocked(
    pool: &PgPool,
    partitions: Vec<Partition>,
    at_least: Duration,
) -> Result<Vec<(String, Partition)>, sqlx::Error> {
    sqlx::query_as(concat!(
        destinations!(),
        "SELECT name, every.partition FROM destination CROSS JOIN unnest($1::smallint[]) AS every (partition) \
         CROSS JOIN LATERAL (SELECT created_at FROM outbox WHERE ",
        destination!(),
        " = name AND outbox.partition = every.partition ORDER BY id LIMIT 1) AS oldest \
         WHERE created_at < clock_timestamp() - make_interval(secs => $2)",
    ))
    .bind(partitions)
    .bind(at_least.as_secs_f64())
    .fetch_all(pool)
    .await
}

/// Dropping it gives the partitions up.
pub(crate) struct Session {
    connection: PgListener,
    partitions: Partitions,
}

impl Session {
    pub(crate) async fn open(outbox: &Outbox) -> Result<Self, SessionError> {
        let partitions = outbox.partitions().clone();
        let connection = bounded(connect(outbox)).await?;
        let mut session = Self { connection, partitions };
        session.check_partitions().await?;
        Ok(session)
    }

    /// Tries to take every partition that nobody holds, and says whether it now holds one more.
    pub(crate) async fn take_free_partitions(&mut self) -> Result<bool, SessionError> {
        let free = self.partitions.free();
        if free.is_empty() {
            return Ok(false);
        }
        let sql = "SELECT partition FROM unnest($2::smallint[]) AS partition \
                   WHERE pg_try_advisory_lock($1, partition)";
        let taken = sqlx::query_scalar(sql).bind(LOCK_CLASS).bind(free).fetch_all(&mut self.connection);
        let taken: Vec<Partition> = bounded(taken).await?;
        for partition in &taken {
            self.partitions.take(*partition);
        }
        Ok(!taken.is_empty())
    }

    /// The next rows of these partitions, a window of at most `limit` for each destination, in the order of their ids.
    /// Destinations with a window in flight are left out, and so are lanes that back off at `now`.
    pub(crate) async fn read(
        &mut self,
        partitions: &[Partition],
        limit: u16,
        lanes: &Lanes,
        now: Instant,
    ) -> Result<Vec<Window>, SessionError> {
        let in_flight: Vec<&str> = lanes.in_flight().collect();
        let (paused, paused_in): (Vec<&str>, Vec<Partition>) = lanes.backing_off(now).unzip();
        let rows = sqlx::query_as(concat!(
            destinations!(),
            "SELECT ready.*, extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_s FROM ( \
                 SELECT next.*, name, row_number() OVER (PARTITION BY name ORDER BY next.id) AS nth \
                 FROM destination CROSS JOIN unnest($1::smallint[]) AS held (partition) \
                 CROSS JOIN LATERAL (SELECT * FROM outbox WHERE ",
            destination!(),
            " = name AND outbox.partition = held.partition ORDER BY id LIMIT $2) AS next \
                 WHERE name <> ALL ($3::text[]) AND NOT EXISTS ( \
                     SELECT FROM unnest($4::text[], $5::smallint[]) AS paused (destination, partition) \
                     WHERE paused.destination = name AND paused.partition = held.partition) \
             ) AS ready WHERE nth <= $2 ORDER BY name, id",
        ));
        let rows = rows.bind(partitions).bind(i64::from(limit)).bind(in_flight).bind(paused).bind(paused_in);
        let rows: Vec<(String, Row)> = bounded(rows.fetch_all(&mut self.connection))
            .await?
            .into_iter()
            .map(|Ready { destination, row }| (destination, row))
            .collect();
        Ok(Window::of(rows, limit))
    }

    /// The age of the oldest row in these partitions, published or not; zero when there is none.
    pub(crate) async fn oldest(&mut self, partitions: &[Partition]) -> Result<Duration, SessionError> {
        let sql = "SELECT max(extract(epoch FROM clock_timestamp() - created_at))::float8 \
                   FROM unnest($1::smallint[]) AS wanted (partition) \
                   CROSS JOIN LATERAL (SELECT created_at FROM outbox WHERE outbox.partition = wanted.partition \
                                       ORDER BY id LIMIT 1) AS oldest";
        let age_s: Option<f64> =
            bounded(sqlx::query_scalar(sql).bind(partitions).fetch_one(&mut self.connection)).await?;
        Ok(seconds(age_s.unwrap_or_default()))
    }

    /// Deletes rows that were published.
    pub(crate) async fn delete(&mut self, rows: &[Place]) -> Result<(), SessionError> {
        if rows.is_empty() {
            return Ok(());
        }
        let sql = "DELETE FROM outbox USING unnest($1::smallint[], $2::bigint[]) AS done (partition, id) \
                   WHERE outbox.partition = done.partition AND outbox.id = done.id";
        let (partitions, ids): (Vec<_>, Vec<_>) =
            rows.iter().map(|place| (place.partition, place.id)).unzip();
        bounded(sqlx::query(sql).bind(partitions).bind(ids).execute(&mut self.connection)).await?;
        Ok(())
    }

    /// An empty query, which keeps the session from ending as idle. To be called once per [`PULSE`].
    pub(crate) async fn show_life(&mut self) -> Result<(), SessionError> {
        bounded(sqlx::query("SELECT").execute(&mut self.connection)).await?;
        Ok(())
    }

    /// Waits for the next notification. Can be dropped while it waits.
    pub(crate) async fn notified(&mut self) -> Result<Notice, SessionError> {
        // `None` says that the connection was lost: with the locks, so the session is over.
        let notification = self.connection.try_recv().await?.ok_or(SessionError::Silent)?;
        Ok(notice(&notification))
    }

    /// A notification that arrived during another query.
    pub(crate) fn buffered(&mut self) -> Option<Notice> {
        self.connection.next_buffered().as_ref().map(notice)
    }

    /// Gives the partitions to whoever waits for them.
    pub(crate) async fn close(mut self) -> Result<(), SessionError> {
        // The flags go first: from now on this process tells others of its rows.
        self.partitions.drop_all();
        bounded(sqlx::query("SELECT pg_advisory_unlock_all()").execute(&mut self.connection)).await?;
        let notify = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(RELEASED);
        bounded(notify.execute(&mut self.connection)).await?;
        Ok(())
    }

    async fn check_partitions(&mut self) -> Result<(), SessionError> {
        let highest = sqlx::query_scalar("SELECT max(partition) FROM outbox").fetch_one(&mut self.connection);
        let highest: Option<Partition> = bounded(highest).await?;
        match highest {
            Some(found) if !self.partitions.contains(found) => {
                Err(SessionError::UnknownPartition { found, configured: self.partitions.len() })
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.partitions.drop_all();
    }
}

/// A connection beside the service's pool, so that neither waits for the other.
async fn connect(outbox: &Outbox) -> Result<PgListener, sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(outbox.pool().connect_options().as_ref().clone());
    let mut connection = PgListener::connect_with(&pool).await?;
    connection.ignore_pool_close_event(true);
    // A listener that connected again by itself would be without its locks and not know it.
    connection.eager_reconnect(false);
    connection.listen(CHANNEL).await?;
    let silence = sqlx::query("SELECT set_config('idle_session_timeout', $1::text, false)");
    silence.bind(SILENCE_MAX_MS.to_string()).execute(&mut connection).await?;
    // Should the database forget a delete in a crash, the row is published again, which consumers bear anyway. So no
    // delete has to wait for the disk or for a standby.
    sqlx::query("SET synchronous_commit = off").execute(&mut connection).await?;
    Ok(connection)
}

fn notice(notification: &PgNotification) -> Notice {
    if notification.payload() == RELEASED { Notice::Released } else { Notice::Stored }
}

async fn bounded<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, SessionError> {
    match timeout(ANSWER_WITHIN, work).await {
        Ok(result) => Ok(result?),
        Err(_elapsed) => Err(SessionError::Silent),
    }
}

/// Zero where the database's clock was set back meanwhile.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// A row with its destination.
struct Ready {
    destination: String,
    row: Row,
}

impl FromRow<'_, PgRow> for Ready {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self { destination: row.try_get("name")?, row: Row::from_row(row)? })
    }
}

impl FromRow<'_, PgRow> for Row {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let age_s: f64 = row.try_get("age_s")?;
        let ce_time: OffsetDateTime = row.try_get("ce_time")?;
        Ok(Self {
            place: Place {
                partition: row.try_get("partition")?,
                id: row.try_get("id")?,
                aggregate: row.try_get("aggregate")?,
                age: seconds(age_s),
            },
            message: Message {
                subject: row.try_get("subject")?,
                ce_id: row.try_get("ce_id")?,
                ce_source: row.try_get("ce_source")?,
                ce_type: row.try_get("ce_type")?,
                ce_time: ce_time.into(),
                correlation_id: row.try_get("correlation_id")?,
                causation_id: row.try_get("causation_id")?,
                traceparent: row.try_get("traceparent")?,
                msg_id: row.try_get("msg_id")?,
                payload: row.try_get("payload")?,
            },
        })
    }
}
