//! Events and commands as messages: CloudEvents 1.0 in binary mode over NATS headers.

use async_nats::HeaderMap;
use serde::{Deserialize, Serialize};
use stampede_contracts::{Event, Timestamp, header};
use stampede_telemetry::trace;

use crate::Undecodable;
use crate::headers::{decode, encode, get};

const SPEC_VERSION: &str = "ce-specversion";
const ID: &str = "ce-id";
const SOURCE: &str = "ce-source";
const TYPE: &str = "ce-type";
const TIME: &str = "ce-time";
const SUBJECT: &str = "ce-subject";
const CORRELATION_ID: &str = "ce-correlationid";
const CAUSATION_ID: &str = "ce-causationid";
const CONTENT_TYPE: &str = "ce-datacontenttype";
const JSON: &str = "application/json";

/// One event or command, ready to be stored in an outbox or published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Where it is published.
    pub subject: String,
    /// CloudEvents `id`: what consumers de-duplicate by. Stays the same however often the message is sent.
    pub ce_id: String,
    /// CloudEvents `source`: the service that publishes it.
    pub ce_source: String,
    /// CloudEvents `type`.
    pub ce_type: String,
    /// CloudEvents `time`: when it happened.
    pub ce_time: Timestamp,
    /// What it is part of: the order, for everything that belongs to one.
    pub correlation_id: Option<String>,
    /// The command that brought it about.
    pub causation_id: Option<String>,
    /// W3C trace context of what brought it about.
    pub traceparent: Option<String>,
    /// What JetStream de-duplicates by: as `ce_id` at first, another one when the message is sent again on purpose.
    pub msg_id: String,
    /// The event as JSON.
    #[serde(with = "text")]
    pub payload: Vec<u8>,
}

/// A payload is JSON, and as text it is stored: as numbers its bytes would be four times as long. What a stranger wrote
/// into it that is no text is replaced.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Text(String),
        /// As it was stored at first.
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(payload: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(payload))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Ok(match Stored::deserialize(deserializer)? {
            Stored::Text(text) => text.into_bytes(),
            Stored::Bytes(bytes) => bytes,
        })
    }
}

/// A message that is no CloudEvent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a CloudEvent 1.0: the header {0} is missing or cannot be read")]
pub struct NotAnEvent(&'static str);

impl Message {
    /// The message for `event`, as of now and as part of the current trace.
    ///
    /// `id` is what consumers de-duplicate by: the step's id for a command, a new UUIDv7 for what has no other name.
    ///
    /// # Errors
    /// When the event has no form in JSON, such as a map whose keys are no text.
    pub fn new<E: Event>(event: &E, id: impl Into<String>) -> Result<Self, serde_json::Error> {
        let id = id.into();
        Ok(Self {
            subject: event.subject(),
            msg_id: id.clone(),
            ce_id: id,
            ce_source: E::SOURCE.to_owned(),
            ce_type: E::TYPE.to_owned(),
            ce_time: Timestamp::now(),
            correlation_id: event.correlation_id(),
            causation_id: None,
            traceparent: trace::traceparent(),
            payload: serde_json::to_vec(event)?,
        })
    }

    /// Says which command brought it about.
    #[must_use]
    pub fn caused_by(mut self, id: impl Into<String>) -> Self {
        self.causation_id = Some(id.into());
        self
    }

    /// Makes it another sending of the same event, `<ce-id>.<attempt>`: JetStream takes it even if it took an earlier
    /// one, and consumers still know it.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.msg_id = format!("{}.{attempt}", self.ce_id);
        self
    }

    /// Makes it part of the trace that `traceparent` names instead of the current one.
    #[must_use]
    pub fn traced_by(mut self, traceparent: Option<String>) -> Self {
        self.traceparent = traceparent;
        self
    }

    /// Its content.
    ///
    /// # Errors
    /// [`Undecodable`] when it is of another type, or its JSON does not fit the type.
    pub fn decode<E: Event>(&self) -> Result<E, Undecodable> {
        if self.ce_type != E::TYPE {
            return Err(Undecodable::OtherType { expected: E::TYPE, found: self.ce_type.clone() });
        }
        serde_json::from_slice(&self.payload)
            .map_err(|source| Undecodable::Malformed { expected: E::TYPE, source })
    }

    /// The headers it travels with.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(SPEC_VERSION, "1.0");
        headers.insert(ID, encode(&self.ce_id));
        headers.insert(SOURCE, encode(&self.ce_source));
        headers.insert(TYPE, encode(&self.ce_type));
        headers.insert(TIME, self.ce_time.to_string());
        headers.insert(SUBJECT, encode(&self.subject));
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(header::NATS_MSG_ID, encode(&self.msg_id));
        let optional = [
            (CORRELATION_ID, &self.correlation_id),
            (CAUSATION_ID, &self.causation_id),
            (header::TRACEPARENT, &self.traceparent),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                headers.insert(name, encode(value));
            }
        }
        headers
    }

    /// Reads a message that arrived.
    ///
    /// # Errors
    /// [`NotAnEvent`] names the first header of CloudEvents that is missing or cannot be read.
    pub fn from_nats(message: &async_nats::Message) -> Result<Self, NotAnEvent> {
        let headers = message.headers.as_ref();
        let optional = |name| get(headers, name).and_then(decode);
        let required = |name| optional(name).filter(|value| !value.is_empty()).ok_or(NotAnEvent(name));
        if get(headers, SPEC_VERSION) != Some("1.0") {
            return Err(NotAnEvent(SPEC_VERSION));
        }
        let ce_id = required(ID)?;
        Ok(Self {
            // A dead letter that is sent again, or a mirror, may arrive on another subject than its own.
            subject: optional(SUBJECT).unwrap_or_else(|| message.subject.to_string()),
            ce_source: required(SOURCE)?,
            ce_type: required(TYPE)?,
            ce_time: required(TIME)?.parse().map_err(|_| NotAnEvent(TIME))?,
            correlation_id: optional(CORRELATION_ID),
            causation_id: optional(CAUSATION_ID),
            traceparent: optional(header::TRACEPARENT),
            msg_id: optional(header::NATS_MSG_ID).unwrap_or_else(|| ce_id.clone()),
            ce_id,
            payload: message.payload.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            subject: "cmd.payments.authorise".into(),
            ce_id: "stp_1".into(),
            ce_source: "orders".into(),
            ce_type: "stampede.payments.command.v1".into(),
            ce_time: Timestamp::now(),
            correlation_id: Some("ord_1 \"ü\"".into()),
            causation_id: None,
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
            msg_id: "stp_1".into(),
            payload: b"{}".to_vec(),
        }
    }

    fn arrived(message: &Message) -> async_nats::Message {
        async_nats::Message {
            subject: message.subject.as_str().into(),
            reply: None,
            payload: message.payload.clone().into(),
            headers: Some(message.headers()),
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn a_message_survives_its_headers() {
        let sent = message().attempt(3).caused_by("stp_0");
        assert_eq!(sent.msg_id, "stp_1.3");
        assert_eq!(Message::from_nats(&arrived(&sent)), Ok(sent));
    }

    #[test]
    fn a_payload_is_stored_as_text_and_read_as_it_was() {
        let sent = message();
        let mut stored = serde_json::to_value(&sent).unwrap();
        assert_eq!(stored["payload"], "{}");
        assert_eq!(serde_json::from_value::<Message>(stored.clone()).unwrap(), sent);
        stored["payload"] = serde_json::json!([123, 125]);
        assert_eq!(serde_json::from_value::<Message>(stored).unwrap(), sent);

        let strange = Message { payload: b"{\"a\":\"\xff\"}".to_vec(), ..sent };
        assert_eq!(serde_json::to_value(&strange).unwrap()["payload"], "{\"a\":\"\u{fffd}\"}");
    }

    #[test]
    fn what_is_no_cloud_event_is_named() {
        let mut wrong = arrived(&message());
        wrong.headers = None;
        assert_eq!(Message::from_nats(&wrong), Err(NotAnEvent(SPEC_VERSION)));

        for name in [ID, SOURCE, TYPE, TIME] {
            let mut wrong = arrived(&message());
            wrong.headers.as_mut().unwrap().insert(name, "");
            assert_eq!(Message::from_nats(&wrong), Err(NotAnEvent(name)));
        }
    }
}
