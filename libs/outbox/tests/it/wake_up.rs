//! How a relay learns that there is something to do. None of these relays would poll while the test runs.

use stampede_outbox::CHANNEL;
use stampede_postgres::Listener;
use stampede_testkit::eventually;

use crate::stage::{NEVER, SOON, Stage, locks, message};

#[tokio::test]
async fn the_own_relay_is_woken_without_a_notification() {
    let stage = Stage::set().await;
    let outbox = stage.outbox();
    let relay = stage.relay_at_work(&outbox, NEVER).await;
    let mut listener = Listener::connect(stage.database.pool(), CHANNEL).await.unwrap();

    for n in 0..20 {
        stage.write(&outbox, &n.to_string(), &[message(n.to_string())]).await;
    }
    stage.until_empty().await;

    sqlx::query("SELECT pg_notify($1, 'the end')")
        .bind(CHANNEL)
        .execute(stage.database.pool())
        .await
        .unwrap();
    let first = tokio::time::timeout(SOON, listener.recv()).await.unwrap().unwrap();
    assert_eq!(first.payload(), "the end", "nothing came before");
    relay.stop().await;
}

#[tokio::test]
async fn another_processes_relay_hears_of_it() {
    let stage = Stage::set().await;
    let relay = stage.relay_at_work(&stage.outbox(), NEVER).await;
    let elsewhere = stage.outbox();
    for n in 0..5 {
        stage.write(&elsewhere, "a", &[message(n.to_string())]).await;
        stage.until_empty().await;
    }
    assert_eq!(stage.published().await, ["0", "1", "2", "3", "4"]);
    relay.stop().await;
}

#[tokio::test]
async fn what_was_written_before_the_start_is_found() {
    let stage = Stage::set().await;
    let outbox = stage.outbox();
    stage.write(&outbox, "a", &[message("1"), message("2")]).await;
    let relay = stage.relay(&outbox, NEVER);
    stage.until_empty().await;
    assert_eq!(stage.published().await, ["1", "2"]);
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_that_stops_hands_over_at_once() {
    let stage = Stage::set().await;
    let (one, two) = (stage.outbox(), stage.outbox());
    let first = stage.relay_at_work(&one, NEVER).await;
    let second = stage.relay(&two, NEVER);
    // It listens before it looks around, and comes away empty-handed; then it cannot miss the other's last words.
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                 AND query LIKE 'SELECT max(extract%' \
                 AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')";
    eventually(SOON, async || {
        let count: i64 = sqlx::query_scalar(waits).fetch_one(stage.database.pool()).await.unwrap();
        count == 1
    })
    .await;

    first.stop().await;
    eventually(SOON, async || locks(&stage.database).await == 4).await;
    stage.write(&two, "a", &[message("1")]).await;
    stage.until_empty().await;
    second.stop().await;
    assert_eq!(locks(&stage.database).await, 0);
}
