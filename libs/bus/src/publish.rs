//! Publishing with an acknowledgement.

use std::convert::Infallible;
use std::time::{Duration, Instant as Clock};

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use bytes::Bytes;
use futures::future::join_all;
use stampede_contracts::header;
use stampede_resilience::{Error, Meaning};
use stampede_telemetry::trace;
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};
use tracing::{Instrument, Span, field};

use crate::replies::{Pending, Unanswered};
use crate::{Bus, Message};

/// Sending and acknowledging of a whole batch. A stream whose leader was lost needs longer to find another; whoever
/// publishes tries again anyway.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);
/// "Store failed", with the reason in words; a full stream among them.
const STORE_FAILED: u64 = 10_077;
/// "Wrong last sequence": something newer lies under the subject, as one server says it and as a cluster may.
const WRONG_LAST_SEQUENCE: [u64; 2] = [10_071, 10_164];

/// A message was not stored, or nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// No stream takes this subject, or JetStream has no leader for it just now.
    #[error("no stream takes this subject")]
    NoStream,
    /// The stream is full and refuses new messages: the push back of a work queue.
    #[error("the stream is full: {0}")]
    Full(String),
    /// It asked to be stored only if nothing newer lies under its subject, and something does.
    #[error("something newer lies under this subject")]
    Outdated,
    /// It was not sent: publishing has failed too often just now, or too many batches are on their way.
    #[error("not sent: {0}")]
    NotSent(String),
    /// There is no connection.
    #[error("there is no connection to NATS")]
    Unavailable,
    /// No acknowledgement in time. It may be stored; sending it again with the same id is safe.
    #[error("no acknowledgement in time")]
    TimedOut,
    /// The message itself cannot be sent, for example because it is too large. Sending it again does not help.
    #[error("the message cannot be sent: {0}")]
    Unsendable(String),
    /// JetStream said no.
    #[error("JetStream refuses: {0}")]
    Refused(String),
}

impl PublishError {
    fn as_str(&self) -> &'static str {
        match self {
            Self::NoStream => "no_stream",
            Self::Full(_) => "full",
            Self::Outdated => "outdated",
            Self::NotSent(_) => "not_sent",
            Self::Unavailable => "disconnected",
            Self::TimedOut => "timed_out",
            Self::Unsendable(_) => "unsendable",
            Self::Refused(_) => "refused",
        }
    }
}

impl From<Unanswered> for PublishError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Disconnected => Self::Unavailable,
            Unanswered::NoResponders => Self::NoStream,
            Unanswered::TimedOut => Self::TimedOut,
            Unanswered::Unsendable(text) => Self::Unsendable(text),
        }
    }
}

impl Bus {
    /// Publishes one message and waits until a stream has it, five seconds at most.
    ///
    /// # Errors
    /// [`PublishError`]
    pub async fn publish(&self, message: &Message) -> Result<(), PublishError> {
        let mut results = self.publish_all(std::slice::from_ref(message)).await;
        results.pop().unwrap_or(Err(PublishError::TimedOut))
    }

    /// Sends all messages in their order, then waits until streams have them, five seconds at most for all together.
    /// The results are in the order of the messages; what JetStream knew already counts as stored.
    pub async fn publish_all(&self, messages: &[Message]) -> Vec<Result<(), PublishError>> {
        let messages: Vec<_> = messages.iter().map(|message| (message, None)).collect();
        let stored = self.publish_where(&messages).await;
        stored.into_iter().map(|stored| stored.map(|_sequence| ())).collect()
    }

    /// Publishes state: each message only if the last one under its subject has the sequence given with it (0: there is none),
    /// so that nothing newer is replaced by something older, however long the publisher was frozen before it sent. Returns
    /// the sequences under which they were stored, in the order of the messages.
    pub async fn publish_states(&self, states: &[(Message, u64)]) -> Vec<Result<u64, PublishError>> {
        let states: Vec<_> = states.iter().map(|(message, expected)| (message, Some(*expected))).collect();
        self.publish_where(&states).await
    }

    async fn publish_where(&self, messages: &[(&Message, Option<u64>)]) -> Vec<Result<u64, PublishError>> {
        let span = tracing::info_span!(
            "publish",
            otel.kind = "producer",
            messaging.system = "nats",
            messaging.operation.name = "send",
            messaging.batch.message_count = messages.len(),
            otel.status_code = field::Empty,
        );
        for (message, _) in messages {
            if let Some(other) = &message.traceparent {
                trace::add_link(&span, other);
            }
        }
        async {
            let results = match self
                .through_layers(|| self.send_all(messages), |sent: &Vec<_>| batch_meaning(sent))
                .await
            {
                Ok(results) => results,
                Err(error) => messages.iter().map(|_| Err(error.clone())).collect(),
            };
            if results.iter().any(Result::is_err) {
                Span::current().record("otel.status_code", "ERROR");
            }
            results
        }
        .instrument(span.clone())
        .await
    }

    async fn send_all(&self, messages: &[(&Message, Option<u64>)]) -> Vec<Result<u64, PublishError>> {
        let started = Clock::now();
        let deadline = Instant::now() + ACKNOWLEDGED_WITHIN;
        let mut sent = Vec::with_capacity(messages.len());
        for (message, expected) in messages {
            let mut headers = message.headers();
            if let Some(sequence) = expected {
                headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string());
            }
            if message.traceparent.is_none()
                && let Some(traceparent) = trace::traceparent()
            {
                headers.insert(header::TRACEPARENT, traceparent);
            }
            let payload = Bytes::copy_from_slice(&message.payload);
            sent.push(self.send(message.subject.clone(), headers, payload, deadline).await);
        }
        let results = join_all(sent.into_iter().map(|pending| acknowledged(pending, deadline))).await;
        for ((message, _), result) in messages.iter().zip(&results) {
            let error = result.as_ref().err().map(PublishError::as_str);
            self.metrics().operation("send", &message.ce_type, error, started);
        }
        results
    }

    /// Publishes anything, and waits until a stream has it.
    pub(crate) async fn store(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), PublishError> {
        let store = || async {
            let deadline = Instant::now() + ACKNOWLEDGED_WITHIN;
            let pending = self.send(subject.clone(), headers.clone(), payload.clone(), deadline).await;
            acknowledged(pending, deadline).await
        };
        self.through_layers(store, meaning).await?.map(|_sequence| ())
    }

    /// Sends through the layers around JetStream, once: whoever publishes comes again by itself.
    async fn through_layers<T, Fut>(
        &self,
        send: impl Fn() -> Fut,
        meaning: impl Fn(&T) -> Meaning + Clone,
    ) -> Result<T, PublishError>
    where
        Fut: Future<Output = T>,
    {
        let streams = self.streams().map_err(|error| PublishError::NotSent(error.to_string()))?;
        if !streams.is_on() {
            return Ok(send().await);
        }
        let means = move |sent: Result<&T, &Infallible>| match sent {
            Ok(sent) => meaning(sent),
            Err(never) => match *never {},
        };
        let sending = service_fn(|()| {
            let sent = send();
            async { Ok::<T, Infallible>(sent.await) }
        });
        streams.single(means).layer(sending).oneshot(()).await.map_err(|error| match error {
            Error::TimedOut => PublishError::TimedOut,
            Error::Open(_) | Error::Crowded(_) => PublishError::NotSent(error.to_string()),
            Error::Inner(never) => match never {},
        })
    }
}

/// What the fate of a message says of JetStream. One that is full pushes back, and is well; that no stream takes a
/// subject is known at once, and says nothing of the other streams, whose messages go through the same circuit.
fn meaning<T>(sent: &Result<T, PublishError>) -> Meaning {
    match sent {
        Err(PublishError::Unavailable | PublishError::TimedOut) => Meaning::Unavailable(None),
        Ok(_) | Err(_) => Meaning::Answer,
    }
}

/// A batch is one call. One stream that is away says nothing of the others: only when all is lost, JetStream is.
fn batch_meaning<T>(sent: &[Result<T, PublishError>]) -> Meaning {
    let all_lost = !sent.is_empty() && sent.iter().all(|sent| meaning(sent) != Meaning::Answer);
    if all_lost { Meaning::Unavailable(None) } else { Meaning::Answer }
}

/// The sequence under which it was stored.
async fn acknowledged(pending: Result<Pending, Unanswered>, deadline: Instant) -> Result<u64, PublishError> {
    let answer = pending?.receive(deadline).await?;
    match serde_json::from_slice(&answer.payload) {
        Ok(Response::<PublishAck>::Ok(stored)) => Ok(stored.sequence),
        Ok(Response::Err { error }) if error.error_code().0 == STORE_FAILED => {
            Err(PublishError::Full(error.to_string()))
        }
        Ok(Response::Err { error }) if WRONG_LAST_SEQUENCE.contains(&error.error_code().0) => {
            Err(PublishError::Outdated)
        }
        // No leader, no resources: it may be stored in a moment.
        Ok(Response::Err { error }) if error.code() >= 500 => Err(PublishError::NoStream),
        Ok(Response::Err { error }) => Err(PublishError::Refused(error.to_string())),
        Err(error) => Err(PublishError::Refused(error.to_string())),
    }
}
