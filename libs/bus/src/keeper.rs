//! What the server has given up on.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use serde::Deserialize;
use stampede_contracts::Timestamp;
use stampede_contracts::topology::{ADVISORIES, advisory_consumer};
use tokio_util::sync::CancellationToken;

use crate::dead_letter::{Cause, Grave};
use crate::durable::{Durable, Limits, Work};
use crate::settle::answer;
use crate::{BoxError, Bus, ConsumerSettings};

/// Advisories dealt with at once.
const BATCH: usize = 16;
const WORK_QUEUE: &str = "workqueue";
/// Before an advisory that could not be dealt with comes again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

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
            stream: ADVISORIES.to_owned(),
            consumer: advisory_consumer(&self.consumer),
            settings: ConsumerSettings::default(),
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
    fn room(&self) -> usize {
        BATCH
    }

    async fn work(
        &mut self,
        batch: Vec<async_nats::jetstream::Message>,
        _limits: Limits,
    ) -> Result<(), BoxError> {
        let mut result = Ok(());
        for message in batch {
            match self.keeper.keep(&message.payload).await {
                Ok(()) => answer(&message, AckKind::Ack).await,
                // The deliveries of advisories have no bound, so an outage cannot use them up.
                Err(error) => {
                    answer(&message, AckKind::Nak(Some(RETRY_AFTER))).await;
                    result = Err(error);
                }
            }
        }
        result
    }

    async fn give_back(&mut self) {}
}
