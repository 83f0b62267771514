//! What could not be handled, with reason and origin.

use async_nats::HeaderMap;
use bytes::Bytes;
use opentelemetry::KeyValue;
use stampede_contracts::{Timestamp, header as names};

use crate::headers::encode;
use crate::{Bus, Message, PublishError};

/// Names of the headers that a dead letter has beside those of the message it was, and the one of its replay.
pub mod header {
    /// What the names of all headers of a letter begin with.
    pub(crate) const PREFIX: &str = "stampede-dead-";
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
    /// On a message that is sent again by a person: the number of the dead letter it was.
    pub const REPLAY_OF: &str = "stampede-replay-of";
}

const REASON_MAX_CHARS: usize = 500;

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
    /// be handled. Twice for the same message is once; its replay, with a `msg_id` of its own, is another.
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
        let id = format!("{stream}.{consumer}.{}", message.msg_id);
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
