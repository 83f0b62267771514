//! Dead letters as an operator reads them, and sends them again.

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};
use stampede_bus::{
    ApiError, Bus, DeadLetter, Message, PublishError, ReplayError, Replayed, Verdict,
    dead_letter_header as header,
};
use stampede_contracts::topology::EVT_CATALOG;
use stampede_testkit::{Nats, eventually};

use crate::consumer::work;
use crate::support::{
    PATIENCE, WORK, WORKER, command, connect, make_dead_letters, make_work, messages_in, publish, worker,
};

/// Waits until there are so many dead letters.
async fn letters(bus: &Bus, count: usize) -> Vec<DeadLetter> {
    eventually(PATIENCE, async || messages_in(bus, "DLQ").await == count as u64).await;
    bus.dead_letters(None, 0, 100).await.unwrap()
}

/// A letter as a consumer of `stream` would lay it aside.
async fn bury(bus: &Bus, stream: &str, subject: &str, sequence: u64) {
    let mut headers = HeaderMap::new();
    headers.insert(header::SUBJECT, subject);
    headers.insert(header::STREAM, stream);
    headers.insert(header::SEQUENCE, sequence.to_string());
    let stored = bus.jetstream().publish_with_headers("dlq.test.worker", headers, "state".into()).await;
    stored.unwrap().await.unwrap();
}

#[tokio::test]
async fn a_replay_is_the_same_event_in_another_message() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, worker()).await;
    let sent = command("poison").caused_by("stp_1");
    publish(&bus, std::slice::from_ref(&sent)).await;
    let (mut deliveries, ..) = work(&bus, |delivery| match delivery.replay_of {
        None => Verdict::Dead("not today".into()),
        Some(_) => Verdict::Done,
    });
    assert_eq!(deliveries.recv().await.unwrap().message, sent);

    let letter = letters(&bus, 1).await.remove(0);
    assert_eq!((letter.sequence, letter.subject.as_str()), (1, "dlq.test.worker"));
    assert_eq!((letter.origin_subject.as_str(), letter.consumer.as_str()), ("cmd.test.note", WORKER));
    assert_eq!((letter.deliveries, letter.reason.as_str()), (1, "not today"));
    assert_eq!(letter.event_id, sent.ce_id);

    assert_eq!(bus.replay_dead_letter(&letter).await, Ok(Replayed::Sent));
    let again = deliveries.recv().await.unwrap();
    assert_eq!(again.replay_of, Some(1));
    assert_ne!(again.msg_id, sent.msg_id);
    assert_eq!(Message { msg_id: sent.msg_id.clone(), ..again.message }, sent);
    letters(&bus, 0).await;
    assert!(bus.dead_letter_at(1).await.unwrap().is_none());
    assert_eq!(bus.newest_dead_letter().await, Ok(1));

    // As after a crash before the letter was deleted.
    assert_eq!(bus.replay_dead_letter(&letter).await, Ok(Replayed::Sent));
    assert_eq!(deliveries.recv().await.unwrap().ce_id, sent.ce_id);
}

#[tokio::test]
async fn what_is_no_event_is_sent_again_as_it_was() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, worker()).await;
    let mut headers = HeaderMap::new();
    headers.insert("x-odd", "yes");
    let sent = bus.jetstream().publish_with_headers("cmd.test.note", headers, "what is this".into()).await;
    sent.unwrap().await.unwrap();
    let (_deliveries, _, stop) = work(&bus, |_| Verdict::Done);
    let letter = letters(&bus, 1).await.remove(0);
    drop(stop);
    eventually(PATIENCE, async || messages_in(&bus, WORK).await == 0).await;

    bus.jetstream().get_stream(WORK).await.unwrap().delete_consumer(WORKER).await.unwrap();
    assert_eq!(bus.replay_dead_letter(&letter).await, Ok(Replayed::Sent));
    let stream = bus.jetstream().get_stream(WORK).await.unwrap();
    let again = stream.get_raw_message(2).await.unwrap();
    assert_eq!((again.subject.as_str(), &*again.payload), ("cmd.test.note", b"what is this".as_slice()));
    let names: Vec<String> = again.headers.iter().map(|(name, _)| name.to_string()).collect();
    assert!(names.iter().all(|name| !name.starts_with("stampede-dead-")), "{names:?}");
    assert_eq!(again.headers.get("x-odd").map(|value| value.as_str()), Some("yes"));
    assert_eq!(again.headers.get(header::REPLAY_OF).map(|value| value.as_str()), Some("1"));
}

#[tokio::test]
async fn a_letter_that_cannot_be_sent_stays() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_dead_letters(&bus).await;
    bury(&bus, WORK, "cmd.test.note", 1).await;
    bus.jetstream().publish("dlq.test.worker", "no headers at all".into()).await.unwrap().await.unwrap();
    let [lost, silent] = letters(&bus, 2).await.try_into().unwrap();
    let missing = Err(ReplayError::NotSent(PublishError::NoStream));
    assert_eq!(bus.replay_dead_letter(&lost).await, missing);
    assert_eq!(bus.replay_dead_letter(&silent).await, Err(ReplayError::NoOrigin));

    let full = Config {
        name: WORK.into(),
        subjects: vec!["cmd.test.>".into()],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        max_messages: 1,
        ..Config::default()
    };
    bus.jetstream().create_stream(full).await.unwrap();
    publish(&bus, &[command("first")]).await;
    let refused = bus.replay_dead_letter(&lost).await;
    assert!(matches!(refused, Err(ReplayError::NotSent(PublishError::Full(_)))), "{refused:?}");
    letters(&bus, 2).await;
}

#[tokio::test]
async fn outdated_state_never_takes_the_place_of_a_newer_one() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_dead_letters(&bus).await;
    let state = Config {
        name: EVT_CATALOG.into(),
        subjects: vec!["evt.catalog.>".into()],
        max_messages_per_subject: 1,
        ..Config::default()
    };
    let mut stream = bus.jetstream().create_stream(state).await.unwrap();
    for subject in ["evt.catalog.show.v1.a", "evt.catalog.show.v1.b", "evt.catalog.show.v1.a"] {
        bus.jetstream().publish(subject, subject.into()).await.unwrap().await.unwrap();
    }
    bury(&bus, EVT_CATALOG, "evt.catalog.show.v1.a", 1).await;
    bury(&bus, EVT_CATALOG, "evt.catalog.show.v1.b", 2).await;
    let [outdated, current] = letters(&bus, 2).await.try_into().unwrap();

    assert_eq!(bus.replay_dead_letter(&outdated).await, Ok(Replayed::Outdated));
    assert_eq!(stream.info().await.unwrap().state.last_sequence, 3);
    assert_eq!(bus.replay_dead_letter(&current).await, Ok(Replayed::Sent));
    assert_eq!(stream.info().await.unwrap().state.last_sequence, 4);
    letters(&bus, 0).await;
}

#[tokio::test]
async fn letters_of_one_consumer_are_read_apart() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    assert!(matches!(bus.dead_letters(None, 0, 1).await, Err(ApiError::Refused(_))), "there is no stream");
    assert!(bus.newest_dead_letter().await.is_err());
    make_dead_letters(&bus).await;
    for consumer in ["one", "other", "one", "one"] {
        bus.jetstream().publish(format!("dlq.test.{consumer}"), "".into()).await.unwrap().await.unwrap();
    }
    let read = async |consumer, after, limit| -> Vec<u64> {
        let letters = bus.dead_letters(consumer, after, limit).await.unwrap();
        letters.iter().map(|letter| letter.sequence).collect()
    };
    assert_eq!(read(None, 0, 10).await, [1, 2, 3, 4]);
    assert_eq!(read(Some("one"), 0, 10).await, [1, 3, 4]);
    assert_eq!(read(Some("one"), 1, 1).await, [3]);
    assert_eq!(read(Some("nobody"), 0, 10).await, Vec::<u64>::new());
    assert_eq!(bus.dead_letters(None, 3, 1).await.unwrap()[0].consumer, "one");
}

#[tokio::test]
async fn what_was_taken_into_a_table_is_laid_aside_once_and_its_replay_once_more() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_dead_letters(&bus).await;
    let message = command("taken");
    for _ in 0..2 {
        bus.dead_letter(WORK, WORKER, &message, 3, "in vain").await.unwrap();
    }
    assert_eq!(letters(&bus, 1).await[0].deliveries, 3);
    let replay = Message { msg_id: format!("{}.replay", message.ce_id), ..message };
    bus.dead_letter(WORK, WORKER, &replay, 3, "in vain again").await.unwrap();
    letters(&bus, 2).await;
}
