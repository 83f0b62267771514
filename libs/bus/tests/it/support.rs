//! What all tests need: a connection, streams and consumers as provision would make them, an event, functions.

use std::fmt::Display;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};
use serde::{Deserialize, Serialize};
use stampede_bus::{Bus, Message, Settings};
use stampede_contracts::function::{Idempotent, Once};
use stampede_contracts::{Class, Event, Function};
use stampede_testkit::Nats;

/// Long enough for a busy machine; nothing that succeeds waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const WORK: &str = "CMD_TEST";
pub const FACTS: &str = "EVT_TEST";
pub const WORKER: &str = "worker";

pub async fn connect(nats: &Nats) -> Bus {
    connect_as(nats, "test", "").await
}

pub async fn connect_as(nats: &Nats, user: &str, password: &str) -> Bus {
    let settings = Settings {
        url: nats.url(),
        user: user.into(),
        password: password.into(),
        service: user.into(),
        instance: format!("{user}-1"),
    };
    Bus::connect(settings).await.unwrap()
}

/// A work queue with its worker, and where its dead letters go.
pub async fn make_work(bus: &Bus, worker: pull::Config) {
    make_dead_letters(bus).await;
    let config = Config {
        name: WORK.into(),
        subjects: vec!["cmd.test.>".into()],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    let stream = bus.jetstream().create_stream(config).await.unwrap();
    stream.create_consumer(worker).await.unwrap();
}

pub fn worker() -> pull::Config {
    pull::Config {
        durable_name: Some(WORKER.into()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: Duration::from_secs(10),
        ..pull::Config::default()
    }
}

pub async fn make_dead_letters(bus: &Bus) {
    let config = Config { name: "DLQ".into(), subjects: vec!["dlq.>".into()], ..Config::default() };
    bus.jetstream().create_stream(config).await.unwrap();
}

/// A state stream.
pub async fn make_facts(bus: &Bus) {
    let config = Config {
        name: FACTS.into(),
        subjects: vec!["evt.test.>".into()],
        max_messages_per_subject: 1,
        metadata: [("generation".to_owned(), uuid::Uuid::new_v4().to_string())].into(),
        ..Config::default()
    };
    bus.jetstream().create_stream(config).await.unwrap();
}

pub async fn messages_in(bus: &Bus, stream: &str) -> u64 {
    bus.jetstream().get_stream(stream).await.unwrap().cached_info().state.messages
}

/// A command when its topic is one, else a piece of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub topic: String,
    pub text: String,
}

impl Event for Note {
    const TYPE: &'static str = "stampede.test.note.v1";
    const SOURCE: &'static str = "test";

    fn subject(&self) -> String {
        self.topic.clone()
    }
}

pub fn command(text: impl Display) -> Message {
    note("cmd.test.note", text)
}

pub fn state(key: impl Display, text: impl Display) -> Message {
    note(&format!("evt.test.note.v1.{key}"), text)
}

fn note(topic: &str, text: impl Display) -> Message {
    let note = Note { topic: topic.to_owned(), text: text.to_string() };
    Message::new(&note, uuid::Uuid::now_v7().to_string()).unwrap()
}

pub async fn publish(bus: &Bus, messages: &[Message]) {
    for result in bus.publish_all(messages).await {
        result.unwrap();
    }
}

/// Answers with what it was asked.
pub enum Echo {}

impl Function for Echo {
    const SERVICE: &'static str = "test";
    const NAME: &'static str = "echo";
    const CLASS: Class = Class::Hold;
    const DEADLINE: Duration = Duration::from_secs(10);
    type Guarantee = Idempotent;
    type Request = String;
    type Reply = String;
}

/// Another function, with a short deadline and no way to repeat it.
pub enum Shout {}

impl Function for Shout {
    const SERVICE: &'static str = "test";
    const NAME: &'static str = "shout";
    const CLASS: Class = Class::Browse;
    const DEADLINE: Duration = Duration::from_millis(300);
    type Guarantee = Once;
    type Request = String;
    type Reply = String;
}
