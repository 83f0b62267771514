//! The writing side: messages go into the caller's transaction.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sqlx::types::time::OffsetDateTime;
use stampede_bus::Message;
use stampede_postgres::{PgConnection, PgPool};
use tokio::sync::Notify;

use crate::partition::{Partition, Partitions, hash};
use crate::session;

/// More partitions than this would only be more locks.
const PARTITIONS_MAX: u16 = 1_024;
/// A relay publishes within milliseconds, and looks once a second for what it missed.
const BLOCKED_AFTER: Duration = Duration::from_secs(5);

/// The outbox of a service. Clones share what the process knows about it.
#[derive(Debug, Clone)]
pub struct Outbox {
    pool: PgPool,
    partitions: Partitions,
    wake: Arc<Notify>,
}

/// A message as a row that a service writes itself, see [`Outbox::row`]. Its form in JSON has the names of the columns.
#[derive(Debug, Serialize)]
pub struct NewRow {
    partition: Partition,
    aggregate: i64,
    #[serde(flatten)]
    message: Message,
    #[serde(skip)]
    held_elsewhere: bool,
}

/// Lanes that take nothing now, see [`Outbox::blocked`].
#[derive(Debug)]
pub struct Blocked {
    lanes: Vec<(String, Partition)>,
    partitions: Partitions,
}

/// What was written; it is published after the commit.
#[derive(Debug)]
pub struct Stored {
    rows: u64,
    outbox: Outbox,
}

impl Outbox {
    /// The outbox in the database of `pool`. All processes have to agree on the number of partitions (between 1 and
    /// 1,024; what lies outside is brought to the nearest). It may grow while the outbox is empty.
    pub fn new(pool: PgPool, partitions: u16) -> Self {
        let partitions = Partitions::new(partitions.clamp(1, PARTITIONS_MAX));
        Self { pool, partitions, wake: Arc::new(Notify::new()) }
    }

    /// Writes messages of one aggregate (an order, a block: what has to stay in order) in the caller's transaction.
    ///
    /// The transaction must hold a lock on the aggregate, usually by having changed its row: then the order of its
    /// messages is the order of its commits. Call [`nudge`](Self::nudge) after the commit.
    ///
    /// # Errors
    /// Those of the database; the transaction is then of no more use. A payload above 512 KiB and a subject with
    /// blanks are refused by the table itself.
    pub async fn add(
        &self,
        connection: &mut PgConnection,
        aggregate: &str,
        messages: &[Message],
    ) -> Result<Stored, sqlx::Error> {
        self.insert(connection, messages.iter().map(|message| (aggregate, message)).collect()).await
    }

    /// Like [`add`](Self::add) for the messages of several aggregates, still with one statement.
    ///
    /// # Errors
    /// Like [`add`](Self::add).
    pub async fn add_all(
        &self,
        connection: &mut PgConnection,
        messages: &[(String, Message)],
    ) -> Result<Stored, sqlx::Error> {
        let messages = messages.iter().map(|(aggregate, message)| (aggregate.as_str(), message));
        self.insert(connection, messages.collect()).await
    }

    /// A message as JSON, for a service that writes it with its own change in one statement, which saves the round
    /// trips of a transaction: `INSERT INTO outbox … SELECT … FROM jsonb_to_record(…)`, with
    /// `convert_to(payload, 'UTF8')`.
    ///
    /// What [`add`](Self::add) asks is asked of that statement: the rows of an aggregate get their ids while its lock is
    /// held. Where a message [`is_held_elsewhere`](NewRow::is_held_elsewhere), the statement notifies
    /// [`CHANNEL`](crate::CHANNEL); [`nudge`](Self::nudge) after the commit.
    pub fn row(&self, aggregate: &str, message: Message) -> NewRow {
        let hash = hash(aggregate);
        let partition = self.partitions.of(hash);
        NewRow {
            partition,
            aggregate: hash.cast_signed(),
            message,
            held_elsewhere: !self.partitions.holds(partition),
        }
    }

    async fn insert(
        &self,
        connection: &mut PgConnection,
        messages: Vec<(&str, &Message)>,
    ) -> Result<Stored, sqlx::Error> {
        if messages.is_empty() {
            return Ok(Stored { rows: 0, outbox: self.clone() });
        }
        let hashes: Vec<u64> = messages.iter().map(|(aggregate, _)| hash(aggregate)).collect();
        let partitions: Vec<Partition> = hashes.iter().map(|hash| self.partitions.of(*hash)).collect();
        let held_elsewhere = partitions.iter().any(|partition| !self.partitions.holds(*partition));

        // A transaction that notifies takes a lock of the whole cluster while it commits, so it is done only where
        // the wake-up of this process would reach nobody.
        sqlx::query(
            "WITH stored AS ( \
                 INSERT INTO outbox (partition, aggregate, subject, ce_id, ce_source, ce_type, ce_time, \
                                     correlation_id, causation_id, traceparent, msg_id, payload) \
                 SELECT partition, aggregate, subject, ce_id, ce_source, ce_type, ce_time, \
                        correlation_id, causation_id, traceparent, msg_id, payload \
                 FROM unnest($1::smallint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], \
                             $7::timestamptz[], $8::text[], $9::text[], $10::text[], $11::text[], $12::bytea[]) \
                      WITH ORDINALITY AS rows (partition, aggregate, subject, ce_id, ce_source, ce_type, ce_time, \
                             correlation_id, causation_id, traceparent, msg_id, payload, place) \
                 ORDER BY place) \
             SELECT pg_notify('outbox', '') WHERE $13",
        )
        .bind(partitions)
        .bind(hashes.iter().map(|hash| hash.cast_signed()).collect::<Vec<_>>())
        .bind(column(&messages, |message| message.subject.as_str()))
        .bind(column(&messages, |message| message.ce_id.as_str()))
        .bind(column(&messages, |message| message.ce_source.as_str()))
        .bind(column(&messages, |message| message.ce_type.as_str()))
        .bind(column(&messages, |message| OffsetDateTime::from(message.ce_time)))
        .bind(column(&messages, |message| message.correlation_id.as_deref()))
        .bind(column(&messages, |message| message.causation_id.as_deref()))
        .bind(column(&messages, |message| message.traceparent.as_deref()))
        .bind(column(&messages, |message| message.msg_id.as_str()))
        .bind(column(&messages, |message| message.payload.as_slice()))
        .bind(held_elsewhere)
        .execute(connection)
        .await?;
        Ok(Stored { rows: messages.len() as u64, outbox: self.clone() })
    }

    /// Wakes the relay of this process. Call it after the commit; before it, the relay would look too early, and find
    /// the rows only at its next idle poll. Calling it for nothing costs a read.
    pub fn nudge(&self) {
        self.wake.notify_one();
    }

    /// Lanes that take nothing now: a message in each has waited for five seconds. A service that repeats messages leaves
    /// these out: what it sent before is still here, and a repetition would only join it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn blocked(&self) -> Result<Blocked, sqlx::Error> {
        let lanes = session::blocked(&self.pool, self.partitions.all().collect(), BLOCKED_AFTER).await?;
        Ok(Blocked { lanes, partitions: self.partitions.clone() })
    }

    pub(crate) async fn nudged(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(crate) fn partitions(&self) -> &Partitions {
        &self.partitions
    }
}

impl Blocked {
    /// Whether a message of this aggregate would wait in one of them.
    pub fn has(&self, aggregate: &str, message: &Message) -> bool {
        let partition = self.partitions.of(hash(aggregate));
        let is_to = |destination: &str| {
            message
                .subject
                .strip_prefix(destination)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.lanes.iter().any(|(destination, within)| *within == partition && is_to(destination))
    }
}

impl Stored {
    /// How many messages were written.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// [`Outbox::nudge`], for after the commit.
    pub fn nudge(self) {
        if self.rows > 0 {
            self.outbox.nudge();
        }
    }
}

impl NewRow {
    /// Whether another process publishes it.
    pub fn is_held_elsewhere(&self) -> bool {
        self.held_elsewhere
    }
}

fn column<'a, T>(messages: &[(&str, &'a Message)], value: impl Fn(&'a Message) -> T) -> Vec<T> {
    messages.iter().map(|(_, message)| value(message)).collect()
}
