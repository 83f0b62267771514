//! The few questions that services may put to JetStream's API, each with its own right.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Bus;
use crate::replies::Unanswered;

/// A server that leads nothing at the moment answers late; a forbidden request never.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const NO_MESSAGE_FOUND: u64 = 10_037;
/// What JetStream says when that is missing which a question is about.
const MISSING: [ErrorCode; 3] =
    [ErrorCode::STREAM_NOT_FOUND, ErrorCode::CONSUMER_NOT_FOUND, ErrorCode(NO_MESSAGE_FOUND)];
/// A consumer that nobody reads goes by itself: readers need no right to delete any.
const INACTIVE_AFTER: Duration = Duration::from_secs(30);

/// JetStream did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// No answer: no connection, no JetStream, no leader, or no right to ask.
    #[error("JetStream does not answer: {0}")]
    Unavailable(String),
    /// It said no.
    #[error("JetStream refuses: {0}")]
    Refused(String),
    /// It said something else.
    #[error("JetStream's answer cannot be read: {0}")]
    Malformed(String),
}

/// What is of interest about a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct StreamInfo {
    /// When it was made; another time means another stream of the same name.
    pub(crate) created: String,
    pub(crate) config: StreamConfig,
    pub(crate) state: StreamState,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StreamConfig {
    pub(crate) retention: String,
    #[serde(default)]
    pub(crate) metadata: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StreamState {
    pub(crate) last_seq: u64,
}

/// What is of interest about a consumer.
#[derive(Debug, Deserialize)]
pub(crate) struct ConsumerInfo {
    pub(crate) name: String,
    pub(crate) num_pending: u64,
    pub(crate) config: ConsumerConfig,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ConsumerConfig {
    /// Nanoseconds; 0 where nothing is acknowledged.
    #[serde(default)]
    ack_wait: u64,
    /// −1 or 0: without bound.
    #[serde(default)]
    max_deliver: i64,
}

impl ConsumerConfig {
    pub(crate) fn ack_wait(&self) -> Duration {
        Duration::from_nanos(self.ack_wait)
    }

    pub(crate) fn max_deliver(&self) -> Option<u64> {
        u64::try_from(self.max_deliver).ok().filter(|max| *max > 0)
    }
}

/// A message as a stream stores it, fields in base64.
#[derive(Debug, Deserialize)]
struct Stored {
    message: async_nats::jetstream::stream::RawMessage,
}

/// From where on an ephemeral consumer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    First,
    LastPerSubject,
    Sequence(u64),
}

impl Bus {
    /// The `generation` that `stampede provision` wrote into a stream when it made it. Another value means that the
    /// stream was made anew and what it held before is gone. `None`: no such stream, or nobody wrote one.
    ///
    /// # Errors
    /// [`ApiError`] when JetStream does not answer.
    pub async fn generation(&self, stream: &str) -> Result<Option<String>, ApiError> {
        let info = self.stream_info(stream).await?;
        Ok(info.and_then(|mut info| info.config.metadata.remove("generation")))
    }

    pub(crate) async fn stream_info(&self, stream: &str) -> Result<Option<StreamInfo>, ApiError> {
        self.api(format!("STREAM.INFO.{stream}"), &json!({})).await
    }

    pub(crate) async fn consumer_info(
        &self,
        stream: &str,
        name: &str,
    ) -> Result<Option<ConsumerInfo>, ApiError> {
        self.api(format!("CONSUMER.INFO.{stream}.{name}"), &json!({})).await
    }

    /// Makes a consumer of this process's own, without acknowledgements, in memory. Its name is the server's choice,
    /// so that the subject to permit has no part that varies.
    pub(crate) async fn create_reader(
        &self,
        stream: &str,
        filter: &str,
        start: Start,
    ) -> Result<Option<ConsumerInfo>, ApiError> {
        let mut config = json!({
            "filter_subject": filter,
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": true,
            "num_replicas": 1,
            "inactive_threshold": u64::try_from(INACTIVE_AFTER.as_nanos()).unwrap_or(u64::MAX),
        });
        match start {
            Start::First => config["deliver_policy"] = "all".into(),
            Start::LastPerSubject => config["deliver_policy"] = "last_per_subject".into(),
            Start::Sequence(first) => {
                config["deliver_policy"] = "by_start_sequence".into();
                config["opt_start_seq"] = first.into();
            }
        }
        let body = json!({ "stream_name": stream, "config": config });
        self.api(format!("CONSUMER.CREATE.{stream}"), &body).await
    }

    pub(crate) async fn stored_message(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<StreamMessage>, ApiError> {
        let subject = format!("STREAM.MSG.GET.{stream}");
        self.api(subject, &json!({ "seq": sequence })).await.and_then(read_stored)
    }

    /// The last message of `stream` under `subject`, with its sequence. `None`: there is none, or no such stream.
    ///
    /// # Errors
    /// [`ApiError`] when JetStream does not answer.
    pub async fn last_message(&self, stream: &str, subject: &str) -> Result<Option<(u64, Bytes)>, ApiError> {
        let body = json!({ "last_by_subj": subject });
        let stored = self.api(format!("STREAM.MSG.GET.{stream}"), &body).await.and_then(read_stored)?;
        Ok(stored.map(|message| (message.sequence, message.payload)))
    }

    /// The first message of `stream` under a subject that `filter` takes, from the sequence `from` on.
    pub(crate) async fn next_message(
        &self,
        stream: &str,
        filter: &str,
        from: u64,
    ) -> Result<Option<StreamMessage>, ApiError> {
        let subject = format!("STREAM.MSG.GET.{stream}");
        let body = json!({ "seq": from, "next_by_subj": filter });
        // Without the stream there is nothing to say about what lies in it.
        self.api_unless(subject, &body, &[ErrorCode(NO_MESSAGE_FOUND)]).await.and_then(read_stored)
    }

    pub(crate) async fn delete_message(&self, stream: &str, sequence: u64) -> Result<(), ApiError> {
        // Without `no_erase` the server overwrites the bytes, which is slow and here for nothing.
        let body = json!({ "seq": sequence, "no_erase": true });
        match self.api::<Value>(format!("STREAM.MSG.DELETE.{stream}"), &body).await {
            // JetStream has one code (500) for all reasons. Somebody else may have been faster, and that is as good.
            Err(ApiError::Refused(_) | ApiError::Unavailable(_))
                if self.stored_message(stream, sequence).await?.is_none() =>
            {
                Ok(())
            }
            deleted => deleted.map(|_| ()),
        }
    }

    /// One request. `None`: what it is about does not exist.
    async fn api<T: DeserializeOwned>(&self, subject: String, body: &Value) -> Result<Option<T>, ApiError> {
        self.api_unless(subject, body, &MISSING).await
    }

    /// One request. `None`: the answer was one of the errors in `missing`.
    async fn api_unless<T: DeserializeOwned>(
        &self,
        subject: String,
        body: &Value,
        missing: &[ErrorCode],
    ) -> Result<Option<T>, ApiError> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let payload = body.to_string().into();
        let answer = self
            .ask(format!("$JS.API.{subject}"), HeaderMap::new(), payload, deadline)
            .await
            .map_err(|error: Unanswered| ApiError::Unavailable(error.to_string()))?;
        match serde_json::from_slice(&answer.payload) {
            Ok(Response::Ok(answer)) => Ok(Some(answer)),
            Ok(Response::Err { error }) if missing.contains(&error.error_code()) => Ok(None),
            // No leader, no resources: the same request may be answered in a moment.
            Ok(Response::Err { error }) if error.code() >= 500 => {
                Err(ApiError::Unavailable(error.to_string()))
            }
            Ok(Response::Err { error }) => Err(ApiError::Refused(error.to_string())),
            Err(error) => Err(ApiError::Malformed(error.to_string())),
        }
    }
}

fn read_stored(stored: Option<Stored>) -> Result<Option<StreamMessage>, ApiError> {
    let message = stored.map(|stored| stored.message.try_into()).transpose();
    message.map_err(|error: async_nats::Error| ApiError::Malformed(error.to_string()))
}
