//! Pulling batches from a consumer.
//!
//! Every pull is ended by the server, so that nothing is on its way when it is over. Whoever stops in the middle would
//! leave messages that come again only after the acknowledgement time-out; and the client library's own batches do not
//! tell whether the server ended them.

use std::time::Duration;

use async_nats::{StatusCode, Subscriber};
use futures::StreamExt;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::connect::until;
use crate::{ApiError, Bus};

/// How much longer than the server we wait for the end of a pull, before we think that it was lost.
const GRACE: Duration = Duration::from_secs(1);
/// A subscription to what a consumer hands out on request.
pub(crate) struct Pull {
    bus: Bus,
    subject: String,
    inbox: String,
    subscriber: Subscriber,
    connections: watch::Receiver<u64>,
    round: u64,
}

pub(crate) struct Batch {
    pub(crate) messages: Vec<async_nats::jetstream::Message>,
    /// The server said that there was no more.
    pub(crate) exhausted: bool,
}

/// The consumer is gone, or has another leader: bind again.
#[derive(Debug, thiserror::Error)]
#[error("the consumer was lost: {0}")]
pub(crate) struct Lost(pub(crate) String);

impl From<ApiError> for Lost {
    fn from(error: ApiError) -> Self {
        Self(error.to_string())
    }
}

impl Pull {
    pub(crate) async fn open(bus: &Bus, stream: &str, consumer: &str) -> Result<Self, Lost> {
        let inbox = bus.client().new_inbox();
        let subscribed = bus.client().subscribe(format!("{inbox}.*")).await;
        let subscriber = subscribed.map_err(|error| Lost(error.to_string()))?;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        Ok(Self { bus: bus.clone(), subject, inbox, subscriber, connections: bus.connections(), round: 0 })
    }

    /// Waits for the first message, `wait` at most, and then takes what else is there, `max` at most.
    ///
    /// Whoever drops this before it is done loses what is on its way, until the server delivers it again.
    pub(crate) async fn fetch(&mut self, max: usize, wait: Duration) -> Result<Batch, Lost> {
        self.round += 1;
        self.connections.mark_unchanged();
        let reply = format!("{}.{}", self.inbox, self.round);
        let give_up = Instant::now() + wait + GRACE;
        // `no_wait` with an expiry: the server waits for a first message, but not for more.
        let expires = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        let request = json!({ "batch": max, "expires": expires, "no_wait": true }).to_string();
        let sending =
            self.bus.client().publish_with_reply(self.subject.clone(), reply.clone(), request.into());
        match until(give_up, sending).await {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(Lost(error.to_string())),
            None => return Ok(Batch { messages: Vec::new(), exhausted: false }),
        }

        let mut batch = Batch { messages: Vec::new(), exhausted: false };
        let mut reconnected = false;
        while batch.messages.len() < max {
            let message = tokio::select! {
                biased;
                message = until(give_up, self.subscriber.next()) => message,
                // The new connection knows nothing of the pull.
                _ = self.connections.changed() => {
                    reconnected = true;
                    break;
                }
            };
            match message {
                None => break,
                Some(None) => return Err(Lost("the connection was closed".to_owned())),
                Some(Some(message)) => match message.status {
                    None | Some(StatusCode::OK) => batch.messages.push(async_nats::jetstream::Message {
                        message,
                        context: self.bus.jetstream().clone(),
                    }),
                    Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) if *message.subject == reply => {
                        batch.exhausted = true;
                        break;
                    }
                    // The late end of an earlier pull.
                    Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND | StatusCode::IDLE_HEARTBEAT) => {}
                    // What has arrived is handled first; the next pull meets the same.
                    Some(_) if !batch.messages.is_empty() => break,
                    Some(status) => {
                        return Err(Lost(message.description.unwrap_or_else(|| status.to_string())));
                    }
                },
            }
        }
        let unanswered = batch.messages.is_empty() && !batch.exhausted;
        if unanswered && !reconnected {
            return Err(Lost("a pull was not answered".to_owned()));
        }
        Ok(batch)
    }
}
