//! What could not be handled, with reason and origin.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::AckKind;
use bytes::Bytes;
use opentelemetry::KeyValue;
use serde::Deserialize;
use stampede_contracts::{Timestamp, header as names};
use tokio_util::sync::CancellationToken;

use crate::durable::{Durable, Limits, Work};
use crate::headers::encode;
use crate::settle::answer;
use crate::{BoxError, Bus, ConsumerSettings, Message, PublishError};

/// Names of the headers that a dead letter has beside those of the message it was.
pub mod header {
    /// Why it could not be handled, percent-encoded.
    pub const REASON: &str = "stampede-dead-reason";
    /// The subject it was published to.
    pub const SUBJECT: &str = "stampede-dead-subject";
    /// The stream it lay in.
    pub const STREAM: &str = "stampede-dead-stream";
    /// Its place there.
    pub const SEQUENCE: &str = "stampede-dead-sequence";
    /// The consumer that could not handle it.
    pub const CONSUMER: &str = "stampede-dead-consumer";
    /// How often it was delivered.
    pub const DELIVERED: &str = "stampede-dead-delivered";
    /// When it was laid aside, RFC 3339.
    pub const TIME: &str = "stampede-dead-time";
}

const STREAM: &str = "ADVISORIES";
const REASON_MAX_CHARS: usize = 500;
const WORK_QUEUE: &str = "workqueue";

/// Where a message comes from.
pub(crate) struct Grave<'a> {
    pub(crate) stream: &'a str,
    pub(crate) consumer: &'a str,
    pub(crate) sequence: u64,
    /// Unix nanoseconds: with the sequence it tells the message from one in an earlier stream of the same name.
    pub(crate) stored_at: i128,
    pub(crate) delivered: u64,
    pub(crate) subject: &'a str,
}

/// What made it a dead letter.
#[derive(Clone, Copy)]
pub(crate) enum Cause {
    Verdict,
    Unreadable,
    Deliveries,
    Advisory,
}

impl Cause {
    fn as_str(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::Unreadable => "unreadable",
            Self::Deliveries => "deliveries",
            Self::Advisory => "advisory",
        }
    }
}

impl Bus {
    /// Lays aside a message that was taken from `consumer` of `stream` into a table, acknowledged there, and can never
    /// be handled. Twice for the same message is once.
    ///
    /// # Errors
    /// [`PublishError`] when the letter was not stored.
    pub async fn dead_letter(
        &self,
        stream: &str,
        consumer: &str,
        message: &Message,
        attempts: u64,
        reason: &str,
    ) -> Result<(), PublishError> {
        let subject = &message.subject;
        let stored_at = i128::from(message.ce_time.unix_millis()) * 1_000_000;
        let grave = Grave { stream, consumer, sequence: 0, stored_at, delivered: attempts, subject };
        let headers = message.headers();
        let id = format!("{stream}.{consumer}.{}", message.ce_id);
        self.bury_as(id, &grave, Some(&headers), message.payload.clone().into(), reason, Cause::Verdict).await
    }

    /// Publishes a message to `dlq.<service>.<consumer>` and waits until it is stored there. Its own headers stay, so
    /// that it can be sent again as what it was.
    pub(crate) async fn bury(
        &self,
        grave: &Grave<'_>,
        headers: Option<&HeaderMap>,
        payload: Bytes,
        reason: &str,
        cause: Cause,
    ) -> Result<(), PublishError> {
        // The same letter twice, after a crash between storing and taking away, is stored once.
        let id = format!("{}.{}.{}.{}", grave.stream, grave.consumer, grave.sequence, grave.stored_at);
        self.bury_as(id, grave, headers, payload, reason, cause).await
    }

    async fn bury_as(
        &self,
        id: String,
        grave: &Grave<'_>,
        headers: Option<&HeaderMap>,
        payload: Bytes,
        reason: &str,
        cause: Cause,
    ) -> Result<(), PublishError> {
        let Grave { stream, consumer, sequence, stored_at: _, delivered, subject } = *grave;
        let reason: String = reason.chars().take(REASON_MAX_CHARS).collect();
        let mut letter = HeaderMap::new();
        for (name, values) in headers.into_iter().flat_map(HeaderMap::iter) {
            let name: &str = name.as_ref();
            // Those that mean something to the server meant the first publishing.
            if !name.to_ascii_lowercase().starts_with("nats-") {
                values.iter().for_each(|value| letter.append(name, value.clone()));
            }
        }
        letter.insert(header::REASON, encode(&reason));
        letter.insert(header::SUBJECT, encode(subject));
        letter.insert(header::STREAM, stream);
        letter.insert(header::SEQUENCE, sequence.to_string());
        letter.insert(header::CONSUMER, consumer);
        letter.insert(header::DELIVERED, delivered.to_string());
        letter.insert(header::TIME, Timestamp::now().to_string());
        letter.insert(names::NATS_MSG_ID, encode(&id));

        self.store(format!("dlq.{}.{consumer}", self.service()), letter, payload).await?;
        tracing::error!(stream, consumer, sequence, subject, reason, "a message became a dead letter");
        let labels = [KeyValue::new("consumer", consumer.to_owned()), KeyValue::new("cause", cause.as_str())];
        self.metrics().dead_letters.add(1, &labels);
        Ok(())
    }
}

/// Lays aside what the server has given up on.
///
/// After the last delivery without an answer, because the process crashed over it every time, nobody gets the message
/// any more; the server says so once, in an advisory. The keeper reads those advisories from the stream `ADVISORIES`
/// by the durable consumer `<consumer>-advisories`, publishes the message as a dead letter, and takes it from a work
/// queue, where it would lie for ever. From other streams it is not deleted: others read it there.
#[derive(Clone)]
pub struct DeadLetterKeeper {
    bus: Bus,
    stream: String,
    consumer: String,
}

/// The parts of `io.nats.jetstream.advisory.v1.max_deliver` that matter.
#[derive(Debug, Deserialize)]
struct Advisory {
    stream: String,
    consumer: String,
    stream_seq: u64,
    deliveries: u64,
    timestamp: Timestamp,
}

impl DeadLetterKeeper {
    /// The keeper of `consumer` of `stream`.
    pub fn new(bus: Bus, stream: impl Into<String>, consumer: impl Into<String>) -> Self {
        Self { bus, stream: stream.into(), consumer: consumer.into() }
    }

    /// Keeps until `shutdown`.
    ///
    /// # Errors
    /// None while it runs.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        let durable = Durable {
            bus: self.bus.clone(),
            stream: STREAM.to_owned(),
            consumer: format!("{}-advisories", self.consumer),
            settings: ConsumerSettings { batch: 16, ..ConsumerSettings::default() },
        };
        durable.run(&shutdown, Keeping { keeper: self }).await
    }

    async fn keep(&self, payload: &[u8]) -> Result<(), BoxError> {
        let advisory: Advisory = match serde_json::from_slice(payload) {
            Ok(advisory) => advisory,
            Err(error) => {
                tracing::error!(%error, "an advisory cannot be read");
                return Ok(());
            }
        };
        if advisory.stream != self.stream || advisory.consumer != self.consumer {
            return Ok(());
        }
        let Some(info) = self.bus.stream_info(&self.stream).await? else { return Ok(()) };
        let Some(message) = self.bus.stored_message(&self.stream, advisory.stream_seq).await? else {
            return Ok(());
        };
        if Timestamp::from(message.time) > advisory.timestamp {
            // The stream was made anew and this is another message with the same number.
            return Ok(());
        }
        let grave = Grave {
            stream: &self.stream,
            consumer: &self.consumer,
            sequence: advisory.stream_seq,
            stored_at: message.time.unix_timestamp_nanos(),
            delivered: advisory.deliveries,
            subject: &message.subject,
        };
        let reason = format!("no answer in {} deliveries", advisory.deliveries);
        self.bus.bury(&grave, Some(&message.headers), message.payload, &reason, Cause::Advisory).await?;
        if info.config.retention == WORK_QUEUE {
            self.bus.delete_message(&self.stream, advisory.stream_seq).await?;
        }
        Ok(())
    }
}

struct Keeping {
    keeper: DeadLetterKeeper,
}

impl Work for Keeping {
    async fn work(
        &mut self,
        batch: Vec<async_nats::jetstream::Message>,
        _limits: Limits,
    ) -> Result<(), BoxError> {
        let mut result = Ok(());
        for message in batch {
            match self.keeper.keep(&message.payload).await {
                Ok(()) => answer(&message, AckKind::Ack).await,
                Err(error) => {
                    answer(&message, AckKind::Nak(Some(Duration::from_secs(5)))).await;
                    result = Err(error);
                }
            }
        }
        result
    }
}
