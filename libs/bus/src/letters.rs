//! Reading dead letters, and sending them again.

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use stampede_contracts::topology::{DLQ, STREAMS};
use stampede_contracts::{Timestamp, header as names};

use crate::dead_letter::header;
use crate::headers::{decode, encode, get};
use crate::{ApiError, Bus, PublishError};

const EXPECTED_LAST: &str = "Nats-Expected-Last-Subject-Sequence";

/// A message that could not be handled, as it lies in the stream of dead letters. What a letter does not say is empty:
/// it is still one to look at.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Its number among the dead letters.
    pub sequence: u64,
    /// `dlq.<service>.<consumer>`.
    pub subject: String,
    /// The subject the message was published to.
    pub origin_subject: String,
    /// The consumer that could not handle it.
    pub consumer: String,
    /// How often that consumer got it, or tried what it had taken into its table.
    pub deliveries: u64,
    /// Why it could not be handled.
    pub reason: String,
    /// CloudEvents `id` of the message.
    pub event_id: String,
    /// When it was laid aside.
    pub at: Timestamp,
    headers: HeaderMap,
    payload: Bytes,
}

/// What became of a dead letter that was to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// It is on its way to its consumers.
    Sent,
    /// It was state that is outdated: a newer one lies under its subject, and every consumer gets that one. It was
    /// only taken away.
    Outdated,
}

/// A dead letter was not sent again, or nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It does not say where it came from.
    #[error("it does not say which subject it was published to")]
    NoOrigin,
    /// It was not stored under its subject; the letter is still there.
    #[error("it was not sent: {0}")]
    NotSent(PublishError),
    /// It was sent, and could not be taken from the dead letters: whoever replays it once more sends it twice, which
    /// its consumers notice by its `ce-id`.
    #[error("it was sent, and is still among the dead letters: {0}")]
    Kept(ApiError),
}

impl DeadLetter {
    fn read(message: StreamMessage) -> Self {
        let text = |name| get(Some(&message.headers), name).and_then(decode);
        let field = |name| text(name).unwrap_or_default();
        let last_token = || message.subject.rsplit('.').next().unwrap_or_default().to_owned();
        Self {
            sequence: message.sequence,
            subject: message.subject.to_string(),
            origin_subject: field(header::SUBJECT),
            consumer: text(header::CONSUMER).unwrap_or_else(last_token),
            deliveries: field(header::DELIVERED).parse().unwrap_or(0),
            reason: field(header::REASON),
            event_id: field("ce-id"),
            at: field(header::TIME).parse().unwrap_or_else(|_| Timestamp::from(message.time)),
            headers: message.headers,
            payload: message.payload,
        }
    }

    /// The headers it travels with when it is sent again: its own, and those that make it a replay.
    fn replay_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, values) in self.headers.iter() {
            let text: &str = name.as_ref();
            let text = text.to_ascii_lowercase();
            if !text.starts_with("nats-") && !text.starts_with(header::PREFIX) {
                values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
            }
        }
        headers.insert(header::REPLAY_OF, self.sequence.to_string());
        // Never one that JetStream has seen: twice is better than never.
        let id = format!("{}.replay.{:016x}", self.event_id, rand::random::<u64>());
        headers.insert(names::NATS_MSG_ID, encode(&id));
        if self.is_state() {
            let place = get(Some(&self.headers), header::SEQUENCE).unwrap_or("0");
            headers.insert(EXPECTED_LAST, place);
        }
        headers
    }

    /// Whether its stream keeps the last message of each subject only: sending an old one again would put it into the
    /// place of a newer one.
    fn is_state(&self) -> bool {
        let origin = get(Some(&self.headers), header::STREAM);
        STREAMS.iter().any(|stream| Some(stream.name) == origin && stream.last_per_subject)
    }
}

impl Bus {
    /// At most `limit` dead letters after the one with the number `after`, the oldest first; only those of `consumer`,
    /// if one is named.
    ///
    /// # Errors
    /// [`ApiError`] when JetStream does not answer, or has no stream of dead letters.
    pub async fn dead_letters(
        &self,
        consumer: Option<&str>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ApiError> {
        let filter = consumer.map_or("dlq.>".to_owned(), |consumer| format!("dlq.*.{consumer}"));
        let mut letters = Vec::new();
        let mut next = after.saturating_add(1);
        while letters.len() < limit {
            let Some(message) = self.next_message(DLQ, &filter, next).await? else { break };
            next = message.sequence.saturating_add(1);
            letters.push(DeadLetter::read(message));
        }
        Ok(letters)
    }

    /// The dead letter with this number, if it is there.
    ///
    /// # Errors
    /// [`ApiError`] when JetStream does not answer.
    pub async fn dead_letter_at(&self, sequence: u64) -> Result<Option<DeadLetter>, ApiError> {
        Ok(self.stored_message(DLQ, sequence).await?.map(DeadLetter::read))
    }

    /// The number of the newest dead letter there ever was; 0 before the first. Whoever replays all of them stops
    /// there, or would meet again and again those that die once more.
    ///
    /// # Errors
    /// [`ApiError`] when JetStream does not answer, or has no stream of dead letters.
    pub async fn newest_dead_letter(&self) -> Result<u64, ApiError> {
        let info = self.stream_info(DLQ).await?;
        let info = info.ok_or_else(|| ApiError::Refused(format!("there is no stream {DLQ}")))?;
        Ok(info.state.last_seq)
    }

    /// Sends the message of a dead letter again: to the subject it came from, with the same `ce-id`, a new
    /// `Nats-Msg-Id`, and a header that says that it is a replay. Only when a stream has it, the letter is deleted; a
    /// crash in between leaves the letter, and who replays that sends twice rather than never.
    ///
    /// # Errors
    /// [`ReplayError`]
    pub async fn replay_dead_letter(&self, letter: &DeadLetter) -> Result<Replayed, ReplayError> {
        if letter.origin_subject.is_empty() {
            return Err(ReplayError::NoOrigin);
        }
        let (subject, payload) = (letter.origin_subject.clone(), letter.payload.clone());
        let replayed = match self.store(subject, letter.replay_headers(), payload).await {
            Ok(()) => Replayed::Sent,
            Err(PublishError::Outdated) => Replayed::Outdated,
            Err(error) => return Err(ReplayError::NotSent(error)),
        };
        self.delete_message(DLQ, letter.sequence).await.map_err(ReplayError::Kept)?;
        Ok(replayed)
    }
}
