//! A message as a consumer gets it.

use std::ops::Deref;

use stampede_contracts::Event;
use stampede_telemetry::trace;
use tracing::{Span, field};

use crate::dead_letter::header::REPLAY_OF;
use crate::headers::get;
use crate::{Message, NotAnEvent};

/// A message that arrived, and what JetStream knows about it. Can be used like its [`Message`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// How often it was delivered or tried again, this time included: above 1 it may have been handled before.
    pub delivered: u64,
    /// Its place in the stream.
    pub stream_sequence: u64,
    /// The number of the dead letter it was, when a person sent it again: it is wanted once more even where it has had
    /// its outcome. A sender that repeats itself is no replay.
    pub replay_of: Option<u64>,
}

/// A message that is not what its handler expects. Sending it again does not help: a case for dead letters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Undecodable {
    /// It is of another type.
    #[error("expected {expected}, got {found}")]
    OtherType {
        /// What the handler can read.
        expected: &'static str,
        /// What it got.
        found: String,
    },
    /// It is not the JSON that its type promises.
    #[error("not a valid {expected}: {source}")]
    Malformed {
        /// Its type.
        expected: &'static str,
        /// Where it goes wrong.
        source: serde_json::Error,
    },
}

impl Delivery {
    /// Reads a message that arrived.
    pub(crate) fn read(
        raw: &async_nats::Message,
        delivered: u64,
        stream_sequence: u64,
    ) -> Result<Self, NotAnEvent> {
        let message = Message::from_nats(raw)?;
        let replay_of = get(raw.headers.as_ref(), REPLAY_OF).and_then(|number| number.parse().ok());
        Ok(Self { message, delivered, stream_sequence, replay_of })
    }

    /// Its content.
    ///
    /// # Errors
    /// [`Undecodable`] when it is of another type, or its JSON does not fit the type.
    pub fn decode<E: Event>(&self) -> Result<E, Undecodable> {
        self.message.decode()
    }

    /// A span for handling this message alone: a child of what brought it about, or, when it was delivered before,
    /// a span of the current trace with a link, because the story was told already.
    pub fn span(&self) -> Span {
        let span = tracing::info_span!(
            "process",
            otel.name = format!("process {}", self.message.ce_type),
            otel.kind = "consumer",
            messaging.system = "nats",
            messaging.operation.name = "process",
            messaging.destination.name = self.message.subject,
            messaging.message.id = self.message.ce_id,
            messaging.nats.delivered = self.delivered,
            otel.status_code = field::Empty,
        );
        tie(&span, std::slice::from_ref(self));
        span
    }
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// Makes `span` a child of what brought the one new message about; several messages, and those that come again, are
/// links.
pub(crate) fn tie(span: &Span, deliveries: &[Delivery]) {
    match deliveries {
        [Delivery { message, delivered: 0 | 1, .. }] => {
            if let Some(parent) = &message.traceparent {
                trace::set_parent(span, parent);
            }
        }
        _ => deliveries
            .iter()
            .filter_map(|delivery| delivery.message.traceparent.as_deref())
            .for_each(|other| trace::add_link(span, other)),
    }
}
