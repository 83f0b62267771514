use async_nats::jetstream::stream::{Config, DiscardPolicy};
use stampede_bus::{Bus, ConnectError, Message, PublishError, Settings};
use stampede_testkit::{Nats, eventually};

use crate::support::{FACTS, PATIENCE, connect, make_facts, messages_in, publish, state};

#[tokio::test]
async fn all_are_stored_and_none_twice() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_facts(&bus).await;
    let messages: Vec<_> = (0..1_000).map(|key| state(key, "x")).collect();
    publish(&bus, &messages).await;
    publish(&bus, &messages).await;
    assert_eq!(messages_in(&bus, FACTS).await, 1_000);
    let last = bus.jetstream().get_stream(FACTS).await.unwrap().cached_info().state.last_sequence;
    assert_eq!(last, 1_000);

    // Sent again on purpose: JetStream takes it, and it is still the same event.
    let again = messages[0].clone().attempt(1);
    publish(&bus, std::slice::from_ref(&again)).await;
    let stored = bus.jetstream().get_stream(FACTS).await.unwrap().get_raw_message(1_001).await.unwrap();
    assert_eq!(stored.headers.get("ce-id").unwrap().as_str(), again.ce_id);
}

#[tokio::test]
async fn what_was_not_stored_is_told_apart() {
    let mut nats = Nats::start().await;
    let bus = connect(&nats).await;
    assert_eq!(bus.publish(&state(1, "x")).await, Err(PublishError::NoStream));

    let config = Config {
        name: "SMALL".into(),
        subjects: vec!["evt.test.>".into()],
        max_messages: 1,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    bus.jetstream().create_stream(config).await.unwrap();
    let results = bus.publish_all(&[state(1, "x"), state(2, "x"), state(3, "x".repeat(2_000_000))]).await;
    assert_eq!(results[0], Ok(()));
    assert!(matches!(results[1], Err(PublishError::Full(_))), "{:?}", results[1]);
    assert!(matches!(results[2], Err(PublishError::Unsendable(_))), "{:?}", results[2]);

    nats.stop();
    eventually(PATIENCE, async || !bus.is_connected()).await;
    assert_eq!(bus.publish(&state(1, "x")).await, Err(PublishError::Unavailable));
}

#[tokio::test]
async fn state_is_stored_behind_the_message_it_names_or_not_at_all() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_facts(&bus).await;
    let store = async |text: &str, expected| {
        let [stored] = bus.publish_states(&[(state(1, text), expected)]).await.try_into().unwrap();
        stored
    };
    let first = store("first", 0).await.unwrap();
    let second = store("second", first).await.unwrap();
    // Read before the second was stored, and sent after it.
    for expected in [0, first] {
        assert_eq!(store("late", expected).await, Err(PublishError::Outdated));
    }
    let (sequence, payload) = bus.last_message(FACTS, "evt.test.note.v1.1").await.unwrap().unwrap();
    assert_eq!(sequence, second);
    assert!(String::from_utf8_lossy(&payload).contains("second"));
    assert_eq!(bus.last_message(FACTS, "evt.test.note.v1.2").await, Ok(None));
}

#[tokio::test]
async fn a_subject_that_no_stream_takes_keeps_no_other_from_being_published_to() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_facts(&bus).await;
    let homeless = Message { subject: "cmd.nobody.thing".into(), ..state(1, "x") };
    for _ in 0..50 {
        assert_eq!(bus.publish(&homeless).await, Err(PublishError::NoStream));
    }
    publish(&bus, &[state(1, "x")]).await;
}

#[tokio::test]
async fn a_drained_connection_has_sent_everything_and_is_closed() {
    let nats = Nats::start().await;
    let (bus, other) = (connect(&nats).await, connect(&nats).await);
    make_facts(&other).await;
    for number in 0..500 {
        bus.client().publish(format!("evt.test.note.v1.{number}"), "x".into()).await.unwrap();
    }
    bus.drain().await;
    eventually(PATIENCE, async || messages_in(&other, FACTS).await == 500).await;
    assert!(bus.client().publish("evt.test.x", "x".into()).await.is_err());
}

#[tokio::test]
async fn a_wrong_password_is_told_at_once() {
    let nats = Nats::start_with_config("authorization { user: test, password: right }").await;
    let settings = Settings {
        url: nats.url(),
        user: "test".into(),
        password: "wrong".into(),
        service: "test".into(),
        instance: "test-1".into(),
    };
    let refused = tokio::time::timeout(PATIENCE, Bus::connect(settings)).await.unwrap();
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
}
