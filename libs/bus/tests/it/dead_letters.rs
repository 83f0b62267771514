use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use futures::StreamExt;
use stampede_bus::{Bus, DeadLetterKeeper, Failure, Message, Verdict, dead_letter_header as header};
use stampede_testkit::{Nats, eventually};
use tokio_util::sync::CancellationToken;

use crate::consumer::{run, work};
use crate::support::{
    PATIENCE, WORK, WORKER, command, connect, make_dead_letters, make_work, messages_in, publish, worker,
};

/// The only dead letter there is.
async fn letter(bus: &Bus) -> StreamMessage {
    eventually(PATIENCE, async || messages_in(bus, "DLQ").await == 1).await;
    bus.jetstream().get_stream("DLQ").await.unwrap().get_raw_message(1).await.unwrap()
}

fn get<'a>(letter: &'a StreamMessage, name: &str) -> Option<&'a str> {
    letter.headers.get(name).map(|value| value.as_str())
}

#[tokio::test]
async fn what_can_never_be_handled_is_laid_aside_with_reason_and_origin() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, worker()).await;
    let sent = command("poison").caused_by("stp_1");
    publish(&bus, std::slice::from_ref(&sent)).await;

    let _running = work(&bus, |_| Verdict::Dead("no such order:\r\nord_1".into()));
    let letter = letter(&bus).await;
    assert_eq!(*letter.subject, *"dlq.test.worker");
    assert_eq!(get(&letter, header::REASON), Some("no%20such%20order:%0D%0Aord_1"));
    assert_eq!(get(&letter, header::SUBJECT), Some("cmd.test.note"));
    assert_eq!(get(&letter, header::STREAM), Some(WORK));
    assert_eq!(get(&letter, header::SEQUENCE), Some("1"));
    assert_eq!(get(&letter, header::CONSUMER), Some(WORKER));
    assert_eq!(get(&letter, header::DELIVERED), Some("1"));
    eventually(PATIENCE, async || messages_in(&bus, WORK).await == 0).await;

    // It can be read, and sent again, as what it was.
    let raw = async_nats::Message {
        subject: letter.subject.clone(),
        reply: None,
        payload: letter.payload.clone(),
        headers: Some(letter.headers.clone()),
        status: None,
        description: None,
        length: 0,
    };
    let read = Message::from_nats(&raw).unwrap();
    assert_eq!(Message { msg_id: sent.msg_id.clone(), ..read }, sent);
}

#[tokio::test]
async fn what_is_no_event_is_laid_aside_and_does_not_hold_up_the_rest() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, worker()).await;
    let mut headers = async_nats::HeaderMap::new();
    // An order to the server that held for the first publishing only: repeated, it would keep the letter out.
    headers.insert("Nats-Expected-Stream", WORK);
    let sent = bus.jetstream().publish_with_headers("cmd.test.note", headers, "what is this".into()).await;
    sent.unwrap().await.unwrap();
    publish(&bus, &[command("fine")]).await;

    let (mut deliveries, ..) = work(&bus, |_| Verdict::Done);
    assert_eq!(deliveries.recv().await.unwrap().stream_sequence, 2);
    let letter = letter(&bus).await;
    assert!(get(&letter, header::REASON).unwrap().contains("ce-specversion"));
    assert_eq!(letter.payload, "what is this");
    eventually(PATIENCE, async || messages_in(&bus, WORK).await == 0).await;
}

#[tokio::test]
async fn the_last_delivery_the_server_allows_ends_as_a_dead_letter() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, pull::Config { max_deliver: 3, ..worker() }).await;
    publish(&bus, &[command("never")]).await;

    run(&bus, |_| async { Err(Failure::Fault("a rule is broken".into())) });
    let letter = letter(&bus).await;
    assert_eq!(get(&letter, header::DELIVERED), Some("3"));
    eventually(PATIENCE, async || messages_in(&bus, WORK).await == 0).await;
}

#[tokio::test]
async fn a_letter_that_cannot_be_stored_stays_in_hand_and_uses_up_no_delivery() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, worker()).await;
    bus.jetstream().delete_stream("DLQ").await.unwrap();
    publish(&bus, &[command("poison")]).await;

    let (mut deliveries, ..) = work(&bus, |_| Verdict::Dead("poison".into()));
    deliveries.recv().await.unwrap();
    make_dead_letters(&bus).await;
    let letter = letter(&bus).await;
    assert_eq!(get(&letter, header::DELIVERED), Some("1"));
    eventually(PATIENCE, async || messages_in(&bus, WORK).await == 0).await;
}

pub async fn make_advisories(bus: &Bus, stream: &str) {
    let config = Config {
        name: "ADVISORIES".into(),
        subjects: vec!["$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>".into()],
        ..Config::default()
    };
    let advisories = bus.jetstream().create_stream(config).await.unwrap();
    let twin = pull::Config {
        durable_name: Some(format!("{WORKER}-advisories")),
        filter_subject: format!("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{stream}.{WORKER}"),
        ack_policy: AckPolicy::Explicit,
        ..pull::Config::default()
    };
    advisories.create_consumer(twin).await.unwrap();
}

/// Takes messages and says nothing, as a process does that crashes over them; until the server has given up on one.
pub async fn crash_over(bus: &Bus, stream: &str) {
    let consumer: pull::Config = worker();
    let name = consumer.durable_name.unwrap();
    let consumer: async_nats::jetstream::consumer::PullConsumer =
        bus.jetstream().get_consumer_from_stream(name, stream).await.unwrap();
    eventually(PATIENCE, async || {
        let wait = Duration::from_millis(200);
        let mut batch = consumer.batch().max_messages(1).expires(wait).messages().await.unwrap();
        while batch.next().await.is_some() {}
        messages_in(bus, "ADVISORIES").await == 1
    })
    .await;
}

#[tokio::test]
async fn what_the_server_gave_up_on_is_laid_aside_and_leaves_the_queue() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, pull::Config { max_deliver: 2, ack_wait: Duration::from_millis(200), ..worker() }).await;
    make_advisories(&bus, WORK).await;
    let sent = command("crash");
    publish(&bus, std::slice::from_ref(&sent)).await;
    crash_over(&bus, WORK).await;
    assert_eq!(messages_in(&bus, WORK).await, 1);

    let shutdown = CancellationToken::new();
    let keeper = DeadLetterKeeper::new(bus.clone(), WORK, WORKER);
    let run = tokio::spawn(keeper.run(shutdown.clone()));
    let letter = letter(&bus).await;
    assert_eq!(*letter.subject, *"dlq.test.worker");
    assert_eq!(letter.payload, sent.payload);
    assert_eq!(get(&letter, "ce-id"), Some(sent.ce_id.as_str()));
    assert_eq!(get(&letter, header::DELIVERED), Some("2"));
    eventually(PATIENCE, async || messages_in(&bus, WORK).await == 0).await;
    shutdown.cancel();
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn from_a_stream_that_others_read_it_is_not_deleted() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_dead_letters(&bus).await;
    let config = Config {
        name: WORK.into(),
        subjects: vec!["cmd.test.>".into()],
        retention: RetentionPolicy::Limits,
        ..Config::default()
    };
    let stream = bus.jetstream().create_stream(config).await.unwrap();
    let impatient = pull::Config { max_deliver: 1, ack_wait: Duration::from_millis(200), ..worker() };
    stream.create_consumer(impatient).await.unwrap();
    make_advisories(&bus, WORK).await;
    publish(&bus, &[command("crash")]).await;
    crash_over(&bus, WORK).await;

    let _run = tokio::spawn(DeadLetterKeeper::new(bus.clone(), WORK, WORKER).run(CancellationToken::new()));
    letter(&bus).await;
    let advisories = bus.jetstream().get_stream("ADVISORIES").await.unwrap();
    eventually(PATIENCE, async || {
        let info = advisories.consumer_info(format!("{WORKER}-advisories")).await.unwrap();
        info.ack_floor.stream_sequence == 1
    })
    .await;
    assert_eq!(messages_in(&bus, WORK).await, 1);
}

#[tokio::test]
async fn an_advisory_about_an_earlier_stream_of_the_same_name_harms_nobody() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, pull::Config { max_deliver: 1, ack_wait: Duration::from_millis(200), ..worker() }).await;
    make_advisories(&bus, WORK).await;
    publish(&bus, &[command("crash")]).await;
    crash_over(&bus, WORK).await;

    bus.jetstream().delete_stream(WORK).await.unwrap();
    bus.jetstream().delete_stream("DLQ").await.unwrap();
    make_work(&bus, worker()).await;
    publish(&bus, &[command("healthy")]).await;

    let _run = tokio::spawn(DeadLetterKeeper::new(bus.clone(), WORK, WORKER).run(CancellationToken::new()));
    let advisories = bus.jetstream().get_stream("ADVISORIES").await.unwrap();
    eventually(PATIENCE, async || {
        let info = advisories.consumer_info(format!("{WORKER}-advisories")).await.unwrap();
        info.ack_floor.stream_sequence == 1
    })
    .await;
    assert_eq!(messages_in(&bus, WORK).await, 1);
    assert_eq!(messages_in(&bus, "DLQ").await, 0);
}
