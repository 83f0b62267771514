//! Order within an aggregate, whatever happens.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::stream::Config;
use stampede_bus::Message;
use stampede_outbox::Outbox;
use stampede_testkit::eventually;

use crate::stage::{NEVER, SOON, Stage, message};

/// The ids are `<aggregate>/<number>`.
fn by_aggregate(published: &[String]) -> BTreeMap<&str, Vec<u32>> {
    let mut by_aggregate: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for id in published {
        let (aggregate, number) = id.split_once('/').unwrap();
        by_aggregate.entry(aggregate).or_default().push(number.parse().unwrap());
    }
    by_aggregate
}

#[tokio::test]
async fn many_writers_two_relays_and_lost_connections_keep_the_order() {
    const WRITERS: u32 = 8;
    const MESSAGES: u32 = 60;

    let stage = Stage::set().await;
    let outboxes = [stage.outbox(), stage.outbox()];
    let relays = outboxes.each_ref().map(|outbox| stage.relay(outbox, Duration::from_millis(50)));
    let writers = (0..WRITERS).map(|writer| {
        let (pool, outbox) = (stage.database.pool().clone(), outboxes[(writer % 2) as usize].clone());
        tokio::spawn(async move {
            let aggregate = writer.to_string();
            for n in 0..MESSAGES {
                let mut transaction = pool.begin().await.unwrap();
                let message = message(format!("{aggregate}/{n}"));
                outbox.add(&mut transaction, &aggregate, &[message]).await.unwrap();
                transaction.commit().await.unwrap();
                outbox.nudge();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let terminate = "SELECT pg_terminate_backend(pid) FROM (SELECT DISTINCT pid FROM pg_locks \
                     WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database \
                     WHERE datname = current_database())) AS relays";
    for _ in 0..3 {
        eventually(SOON, async || crate::stage::locks(&stage.database).await > 0).await;
        sqlx::query(terminate).execute(stage.database.pool()).await.unwrap();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    stage.until_empty().await;

    let published = stage.published().await;
    let by_aggregate = by_aggregate(&published);
    assert_eq!(by_aggregate.len(), WRITERS as usize);
    for numbers in by_aggregate.values() {
        assert!(numbers.iter().copied().eq(0..MESSAGES), "{numbers:?}");
    }
    for relay in relays {
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_full_stream_pushes_back_and_nothing_overtakes() {
    let stage = Stage::with(Config { max_messages: 3, ..Config::default() }).await;
    let outbox = stage.outbox();
    let relay = stage.relay_at_work(&outbox, NEVER).await;
    let mut messages = Vec::new();
    for n in 0..10 {
        messages
            .extend(["a", "b"].map(|aggregate| (aggregate.to_owned(), message(format!("{aggregate}/{n}")))));
    }
    let mut transaction = stage.database.begin().await.unwrap();
    outbox.add_all(&mut transaction, &messages).await.unwrap().nudge();
    transaction.commit().await.unwrap();
    outbox.nudge();

    let mut taken = Vec::new();
    while taken.len() < messages.len() {
        eventually(SOON, async || stage.stream.get_info().await.unwrap().state.messages > 0).await;
        let sequence = stage.stream.get_info().await.unwrap().state.first_sequence;
        let first = stage.stream.get_raw_message(sequence).await.unwrap();
        taken.push(first.headers.get("ce-id").unwrap().to_string());
        stage.stream.delete_message(sequence).await.unwrap();
    }
    stage.until_empty().await;
    for numbers in by_aggregate(&taken).values() {
        assert!(numbers.iter().copied().eq(0..10), "{numbers:?}");
    }
    relay.stop().await;
}

/// Twice a window's worth of messages to a destination that takes none, in every partition.
async fn write_to_nobody(stage: &Stage, outbox: &Outbox) -> Vec<(String, Message)> {
    let to_nobody =
        |n: u32| Message { subject: "cmd.nobody.thing".into(), ..message(format!("{}/{}", n % 40, n / 40)) };
    let waiting: Vec<_> = (0..600).map(|n| ((n % 40).to_string(), to_nobody(n))).collect();
    let mut transaction = stage.database.begin().await.unwrap();
    outbox.add_all(&mut transaction, &waiting).await.unwrap();
    transaction.commit().await.unwrap();
    waiting
}

#[tokio::test]
async fn a_destination_without_its_stream_holds_back_no_other_and_is_served_in_order_when_it_is_back() {
    let stage = Stage::set().await;
    let outbox = stage.outbox();
    let relay = stage.relay_at_work(&outbox, NEVER).await;
    let waiting = write_to_nobody(&stage, &outbox).await;
    outbox.nudge();
    // Of the same aggregates, and written after them.
    for n in 0..5 {
        let elsewhere: Vec<_> =
            (0..40).map(|aggregate| (aggregate.to_string(), message(format!("{aggregate}/{n}")))).collect();
        let mut transaction = stage.database.begin().await.unwrap();
        let stored = outbox.add_all(&mut transaction, &elsewhere).await.unwrap();
        transaction.commit().await.unwrap();
        stored.nudge();
        eventually(SOON, async || stage.rows().await == 600).await;
    }
    for numbers in by_aggregate(&stage.published().await).values() {
        assert!(numbers.iter().copied().eq(0..5), "{numbers:?}");
    }

    let config = Config { name: "NOBODY".into(), subjects: vec!["cmd.nobody.>".into()], ..Config::default() };
    let stream = stage.bus.jetstream().create_stream(config).await.unwrap();
    stage.until_empty().await;
    let taken = Stage { stream, ..stage }.published().await;
    assert_eq!(taken.len(), waiting.len());
    for numbers in by_aggregate(&taken).values() {
        assert!(numbers.iter().copied().eq(0..15), "{numbers:?}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_lane_that_is_blocked_is_found_and_no_other_of_its_partition_or_destination() {
    let stage = Stage::set().await;
    let outbox = stage.outbox();
    let elsewhere = message("1/2");
    let first = Message { subject: "cmd.nobody.thing".into(), ..message("1/1") };
    stage.write(&outbox, "1", std::slice::from_ref(&first)).await;
    assert!(!outbox.blocked().await.unwrap().has("1", &first), "it has just been written");
    sqlx::query("UPDATE outbox SET created_at = created_at - interval '6 seconds'")
        .execute(stage.database.pool())
        .await
        .unwrap();
    stage.write(&outbox, "1", std::slice::from_ref(&elsewhere)).await;
    let blocked = outbox.blocked().await.unwrap();
    assert!(blocked.has("1", &first) && !blocked.has("1", &elsewhere));
    let other = Message { subject: "cmd.nobody2.thing".into(), ..first.clone() };
    assert!(!blocked.has("1", &other));
    let of_four = (2..100).filter(|n: &u32| blocked.has(&n.to_string(), &first)).count();
    assert!((1..60).contains(&of_four), "its partition has a quarter of all aggregates: {of_four}");
}
