//! What every test needs: a database with the table, a server with a stream, messages, and relays.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Stream};
use futures::TryStreamExt;
use sqlx::migrate::Migrator;
use stampede_bus::{Bus, Message, Settings};
use stampede_outbox::{BoxError, Outbox, Relay, RelaySettings, SCHEMA};
use stampede_postgres::PgPool;
use stampede_testkit::{Database, Nats, eventually, fresh_database};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// For everything that happens by itself.
pub const SOON: Duration = Duration::from_secs(60);
/// So long that a test would fail before: what is seen earlier was not seen by polling.
pub const NEVER: Duration = Duration::from_secs(600);

pub struct Stage {
    pub database: Database,
    pub nats: Nats,
    pub bus: Bus,
    pub stream: Stream,
}

impl Stage {
    pub async fn set() -> Self {
        Self::with(Config::default()).await
    }

    /// The stream `EVENTS` with these limits.
    pub async fn with(config: Config) -> Self {
        let (database, nats) = tokio::join!(fresh_database("outbox", &Migrator::DEFAULT), Nats::start());
        sqlx::raw_sql(SCHEMA).execute(database.pool()).await.unwrap();
        let bus = Bus::connect(settings(&nats)).await.unwrap();
        let config = Config {
            name: "EVENTS".into(),
            subjects: vec!["evt.>".into()],
            discard: DiscardPolicy::New,
            ..config
        };
        let stream = bus.jetstream().create_stream(config).await.unwrap();
        Self { database, nats, bus, stream }
    }

    /// What a process would have: its own view of the same table.
    pub fn outbox(&self) -> Outbox {
        Outbox::new(self.database.pool().clone(), 4)
    }

    pub fn relay(&self, outbox: &Outbox, idle_poll: Duration) -> Running {
        let shutdown = CancellationToken::new();
        let settings = RelaySettings { idle_poll, ..RelaySettings::default() };
        let relay = Relay::new(outbox.clone(), self.bus.clone(), settings);
        Running { task: tokio::spawn(relay.run(shutdown.clone())), shutdown }
    }

    /// A relay that holds all partitions.
    pub async fn relay_at_work(&self, outbox: &Outbox, idle_poll: Duration) -> Running {
        let relay = self.relay(outbox, idle_poll);
        eventually(SOON, async || locks(&self.database).await == 4).await;
        relay
    }

    /// Writes messages in a transaction of their own, and wakes the relay.
    pub async fn write(&self, outbox: &Outbox, aggregate: &str, messages: &[Message]) {
        let mut transaction = self.database.begin().await.unwrap();
        let stored = outbox.add(&mut transaction, aggregate, messages).await.unwrap();
        assert_eq!(stored.rows(), messages.len() as u64);
        transaction.commit().await.unwrap();
        stored.nudge();
    }

    pub async fn rows(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(self.database.pool()).await.unwrap()
    }

    pub async fn until_empty(&self) {
        eventually(SOON, async || self.rows().await == 0).await;
    }

    /// The ids of everything in the stream, in its order.
    pub async fn published(&self) -> Vec<String> {
        self.messages().await.into_iter().map(|message| message.ce_id).collect()
    }

    /// Everything in the stream, in its order.
    pub async fn messages(&self) -> Vec<Message> {
        let count = self.stream.get_info().await.unwrap().state.messages;
        let consumer = self.stream.create_consumer(OrderedConfig::default()).await.unwrap();
        let mut arriving = consumer.messages().await.unwrap();
        let mut messages = Vec::new();
        while (messages.len() as u64) < count {
            let message = arriving.try_next().await.unwrap().unwrap();
            messages.push(Message::from_nats(&message).unwrap());
        }
        messages
    }
}

/// A relay in a task.
pub struct Running {
    pub task: JoinHandle<Result<(), BoxError>>,
    pub shutdown: CancellationToken,
}

impl Running {
    /// Asks it to stop, and waits.
    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(SOON, self.task).await.unwrap().unwrap().unwrap();
    }
}

pub fn settings(nats: &Nats) -> Settings {
    Settings {
        url: nats.url(),
        user: "test".into(),
        password: "test".into(),
        service: "test".into(),
        instance: "test-1".into(),
    }
}

pub fn message(id: impl Into<String>) -> Message {
    let id = id.into();
    Message {
        subject: "evt.test.thing.v1.key".into(),
        ce_id: id.clone(),
        ce_source: "test".into(),
        ce_type: "stampede.test.thing.v1".into(),
        ce_time: "2027-01-31T20:00:00Z".parse().unwrap(),
        correlation_id: None,
        causation_id: None,
        traceparent: None,
        msg_id: id,
        payload: b"{}".to_vec(),
    }
}

/// How many partitions are held, by whomever.
pub async fn locks(pool: &PgPool) -> i64 {
    let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}
