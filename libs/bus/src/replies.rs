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

type Waiting = Mutex<HashMap<u64, oneshot::Sender<async_nats::Message>>>;

pub(crate) struct Replies {
    prefix: String,
    next: AtomicU64,
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
                let id = message.subject.rsplit('.').next().and_then(|token| token.parse().ok());
                let waiting = id.and_then(|id| lock(&entries).remove(&id));
                if let Some(waiting) = waiting {
                    // It fails when whoever waited has just given up.
                    let _ = waiting.send(message);
                }
            }
        });
        Ok(Self { prefix, next: AtomicU64::new(0), waiting, _reader: AbortOnDropHandle::new(reader) })
    }

    fn expect(&self) -> Pending {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert(id, sender);
        Pending { id, answer, waiting: Arc::clone(&self.waiting) }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.waiting).len()
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
        lock(&self.waiting).remove(&self.id);
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
        let pending = self.replies().expect();
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

/// The map is whole after every statement, so a panic elsewhere does not spoil it.
fn lock(waiting: &Waiting) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<async_nats::Message>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
