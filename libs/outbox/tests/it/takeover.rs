//! Losing the database's connection, the relay, and NATS.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use stampede_bus::Bus;
use stampede_outbox::{Outbox, Relay, RelaySettings};
use stampede_postgres::PgPool;
use stampede_testkit::eventually;
use tokio_util::sync::CancellationToken;

use crate::stage::{NEVER, SOON, Stage, locks, message, settings};

const POLL: Duration = Duration::from_millis(50);

/// Ends the connection that holds the locks, as an administrator or a fail-over would.
async fn end_the_relays_connection(pool: &PgPool) {
    let sql = "SELECT pg_terminate_backend(pid) FROM (SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS relays";
    sqlx::query(sql).execute(pool).await.unwrap();
}

#[tokio::test]
async fn it_survives_the_loss_of_its_connection() {
    let stage = Stage::set().await;
    let outbox = stage.outbox();
    let relay = stage.relay_at_work(&outbox, NEVER).await;
    for round in 0..3 {
        end_the_relays_connection(&stage.database).await;
        stage.write(&outbox, "a", &[message(round.to_string())]).await;
        stage.until_empty().await;
    }
    assert_eq!(stage.published().await, ["0", "1", "2"]);
    relay.stop().await;
}

#[tokio::test]
async fn another_relay_takes_over_from_one_that_died() {
    let stage = Stage::set().await;
    let (one, two) = (stage.outbox(), stage.outbox());
    let first = stage.relay_at_work(&one, POLL).await;
    let second = stage.relay(&two, POLL);
    stage.write(&one, "a", &[message("1")]).await;
    stage.until_empty().await;

    first.task.abort();
    end_the_relays_connection(&stage.database).await;
    eventually(SOON, async || locks(&stage.database).await == 4).await;
    stage.write(&two, "a", &[message("2")]).await;
    stage.until_empty().await;
    assert_eq!(stage.published().await, ["1", "2"]);
    second.stop().await;
}

/// A process with a relay that can be stopped as SIGSTOP does: its sockets stay open, and nothing in it moves.
struct Frozen {
    thread: thread::JoinHandle<()>,
    thaw: mpsc::Sender<()>,
}

impl Frozen {
    /// Runs a relay until it holds all partitions, and freezes it.
    async fn with_all_partitions(stage: &Stage) -> Self {
        let (freeze, frozen) = tokio::sync::oneshot::channel::<()>();
        let (thaw, thawed) = mpsc::channel();
        let database = stage.database.pool().connect_options();
        let settings = settings(&stage.nats);
        let process = async move {
            let bus = Bus::connect(settings).await.unwrap();
            let outbox =
                Outbox::new(PgPool::new(sqlx::PgPool::connect_lazy_with((*database).clone()), SOON), 4);
            let shutdown = CancellationToken::new();
            let relay = Relay::new(outbox, bus, RelaySettings::default()).run(shutdown.clone());
            let relay = tokio::spawn(relay);
            frozen.await.unwrap();
            // It blocks the only thread of this runtime.
            thawed.recv().unwrap();
            shutdown.cancel();
            relay.await.unwrap().unwrap();
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thread = thread::spawn(move || runtime.block_on(process));
        eventually(SOON, async || locks(&stage.database).await == 4).await;
        freeze.send(()).unwrap();
        Self { thread, thaw }
    }

    fn thaw(self) {
        self.thaw.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

#[tokio::test]
async fn a_frozen_relay_does_not_keep_its_partitions() {
    let stage = Stage::set().await;
    let frozen = Frozen::with_all_partitions(&stage).await;
    let outbox = stage.outbox();
    let relay = stage.relay(&outbox, POLL);
    stage.write(&outbox, "a", &[message("1")]).await;
    stage.until_empty().await;
    assert_eq!(stage.published().await, ["1"]);

    // Awake again it finds its session ended, and everything in other hands.
    frozen.thaw();
    stage.write(&outbox, "a", &[message("2")]).await;
    stage.until_empty().await;
    assert_eq!(stage.published().await, ["1", "2"]);
    relay.stop().await;
}

/// The connection that holds the locks, and for how many seconds it has been there.
async fn holder(pool: &PgPool) -> (i32, f64) {
    let sql = "SELECT pid, extract(epoch FROM clock_timestamp() - backend_start)::float8 FROM pg_stat_activity \
               WHERE pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory') AND datname = current_database()";
    sqlx::query_as(sql).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_relay_that_has_nothing_to_do_or_cannot_publish_keeps_its_connection() {
    let mut stage = Stage::set().await;
    let outbox = stage.outbox();
    let relay = stage.relay_at_work(&outbox, NEVER).await;
    let (pid, _) = holder(&stage.database).await;
    eventually(SOON, async || holder(&stage.database).await.1 > 7.0).await;
    stage.nats.stop();
    stage.write(&outbox, "a", &[message("1")]).await;
    eventually(SOON, async || holder(&stage.database).await.1 > 15.0).await;
    assert_eq!(holder(&stage.database).await.0, pid);
    stage.nats.restart().await;
    stage.until_empty().await;
    relay.stop().await;
}

#[tokio::test]
async fn while_nats_is_away_messages_wait_and_then_come_in_order() {
    let mut stage = Stage::set().await;
    let outbox = stage.outbox();
    let relay = stage.relay_at_work(&outbox, NEVER).await;
    stage.nats.stop();
    let messages: Vec<_> = (0..50).map(|n| message(format!("{n:02}"))).collect();
    for message in &messages {
        stage.write(&outbox, "a", std::slice::from_ref(message)).await;
    }
    assert_eq!(stage.rows().await, 50);

    stage.nats.restart().await;
    stage.until_empty().await;
    assert!(stage.published().await.iter().eq(messages.iter().map(|message| &message.ce_id)));
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_can_start_before_its_stream_is_there() {
    let stage = Stage::set().await;
    stage.bus.jetstream().delete_stream("EVENTS").await.unwrap();
    let bus = Bus::connect(settings(&stage.nats)).await.unwrap();
    let outbox = stage.outbox();
    stage.write(&outbox, "a", &[message("1")]).await;
    let shutdown = CancellationToken::new();
    let relay = tokio::spawn(Relay::new(outbox, bus, RelaySettings::default()).run(shutdown.clone()));
    eventually(SOON, async || locks(&stage.database).await == 4).await;

    let config = async_nats::jetstream::stream::Config {
        name: "EVENTS".into(),
        subjects: vec!["evt.>".into()],
        ..Default::default()
    };
    stage.bus.jetstream().create_stream(config).await.unwrap();
    stage.until_empty().await;
    assert_eq!(stage.published().await, ["1"]);
    shutdown.cancel();
    relay.await.unwrap().unwrap();
}
