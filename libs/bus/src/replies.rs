//! One subscription for all answers.
//!
//! The client library has the same thing inside, but forgets nobody who gave up waiting
//! (<https://github.com/nats-io/nats.rs/issues/1617>): a responder that hangs would slowly fill the memory of all who
//! ask it. Here whoever stops waiting takes the entry along.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{Client, HeaderMap, StatusCode, SubscribeError};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::Bus;
use crate::connect::until;

/// Who waits for which answer.
#[derive(Default)]
struct Waiting {
    next: AtomicU64,
    entries: Mutex<HashMap<u64, oneshot::Sender<async_nats::Message>>>,
}

pub(crate) struct Replies {
    prefix: String,
    waiting: Arc<Waiting>,
    _reader: AbortOnDropHandle<()>,
}

/// An answer that is due. Dropping it forgets it.
pub(crate) struct Pending {
    id: u64,
    answer: oneshot::Receiver<async_nats::Message>,
    waiting: Arc<Waiting>,
}

/// Why there was no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("there is no connection to NATS")]
    Disconnected,
    #[error("nobody listens there")]
    NoResponders,
    #[error("no answer in time")]
    TimedOut,
    #[error("the message cannot be sent: {0}")]
    Unsendable(String),
}

impl Replies {
    pub(crate) async fn subscribe(client: &Client) -> Result<Self, SubscribeError> {
        let prefix = client.new_inbox();
        let mut subscriber = client.subscribe(format!("{prefix}.*")).await?;
        let waiting = Arc::new(Waiting::default());
        let entries = Arc::clone(&waiting);
        let reader = tokio::spawn(async move {
            while let Some(message) = subscriber.next().await {
                entries.resolve(message);
            }
        });
        Ok(Self { prefix, waiting, _reader: AbortOnDropHandle::new(reader) })
    }
}

impl Waiting {
    fn expect(self: &Arc<Self>) -> Pending {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.entries().insert(id, sender);
        Pending { id, answer, waiting: Arc::clone(self) }
    }

    /// Gives an answer to whoever waits for it; the last token of its subject says who.
    fn resolve(&self, message: async_nats::Message) {
        let id = message.subject.rsplit('.').next().and_then(|token| token.parse().ok());
        let waiting = id.and_then(|id| self.entries().remove(&id));
        if let Some(waiting) = waiting {
            // It fails when whoever waited has just given up.
            let _ = waiting.send(message);
        }
    }

    /// The map is whole after every statement, so a panic elsewhere does not spoil it.
    fn entries(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<async_nats::Message>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// The answer, if it comes before `deadline`.
    pub(crate) async fn receive(mut self, deadline: Instant) -> Result<async_nats::Message, Unanswered> {
        match until(deadline, &mut self.answer).await {
            Some(Ok(message)) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(Unanswered::NoResponders)
            }
            Some(Ok(message)) => Ok(message),
            Some(Err(_)) => Err(Unanswered::Disconnected),
            None => Err(Unanswered::TimedOut),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.waiting.entries().remove(&self.id);
    }
}

impl Bus {
    /// Hands a request to the connection. At once an error when there is none: the client library would keep the
    /// request for when it is back, which is after everybody gave up.
    pub(crate) async fn send(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<Pending, Unanswered> {
        if !self.is_connected() {
            return Err(Unanswered::Disconnected);
        }
        let pending = self.replies().waiting.expect();
        let reply = format!("{}.{}", self.replies().prefix, pending.id);
        let sending = self.client().publish_with_reply_and_headers(subject, reply, headers, payload);
        match until(deadline, sending).await {
            Some(Ok(())) => Ok(pending),
            Some(Err(error)) => Err(Unanswered::Unsendable(error.to_string())),
            None => Err(Unanswered::TimedOut),
        }
    }

    /// A request and its answer.
    pub(crate) async fn ask(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<async_nats::Message, Unanswered> {
        self.send(subject, headers, payload, deadline).await?.receive(deadline).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer(id: u64) -> async_nats::Message {
        async_nats::Message {
            subject: format!("_INBOX_test.abc.{id}").into(),
            reply: None,
            payload: Bytes::from_static(b"yes"),
            headers: None,
            status: None,
            description: None,
            length: 3,
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(10)
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_finds_the_one_who_waits_for_it() {
        let waiting = Arc::new(Waiting::default());
        let (first, second) = (waiting.expect(), waiting.expect());
        waiting.resolve(answer(second.id));
        assert_eq!(second.receive(soon()).await.unwrap().payload, "yes");
        assert_eq!(first.receive(soon()).await.unwrap_err(), Unanswered::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_who_gave_up_is_remembered() {
        let waiting = Arc::new(Waiting::default());
        let (late, dropped) = (waiting.expect(), waiting.expect());
        assert_eq!(waiting.entries().len(), 2);
        drop(dropped);
        let id = late.id;
        assert_eq!(late.receive(soon()).await.unwrap_err(), Unanswered::TimedOut);
        assert_eq!(waiting.entries().len(), 0);
        waiting.resolve(answer(id));
        waiting.resolve(answer(u64::MAX));
    }
}
