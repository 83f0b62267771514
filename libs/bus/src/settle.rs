//! Answering the server for each message: done, again, or laid aside.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::AckKind;

use crate::connect::until;
use crate::dead_letter::{Cause, Grave};
use crate::durable::{Durable, Limits};
use crate::{Delivery, Verdict};

/// Handing an answer to the connection; longer only while NATS is away, and then the message comes again anyway.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A message that the handler gets to see, and its raw form for the answer.
pub(crate) struct InHand {
    raw: jetstream::Message,
    stream_sequence: u64,
    pub(crate) delivered: u64,
}

impl InHand {
    /// What the handler gets; again, if it has to be asked twice. `None` cannot be: it was read before.
    pub(crate) fn delivery(&self) -> Option<Delivery> {
        Delivery::read(&self.raw.message, self.delivered, self.stream_sequence).ok()
    }
}

impl Durable {
    /// Reads the messages; lays those aside that are no events.
    pub(crate) async fn read(&self, batch: Vec<jetstream::Message>) -> (Vec<InHand>, Vec<Delivery>) {
        let mut in_hand = Vec::with_capacity(batch.len());
        let mut deliveries = Vec::with_capacity(batch.len());
        for raw in batch {
            let Ok(info) = raw.info() else {
                tracing::error!(subject = %raw.subject, "what a consumer delivered is no message of JetStream");
                continue;
            };
            let delivered = u64::try_from(info.delivered).unwrap_or(1);
            let stream_sequence = info.stream_sequence;
            match Delivery::read(&raw.message, delivered, stream_sequence) {
                Ok(delivery) => {
                    deliveries.push(delivery);
                    in_hand.push(InHand { raw, stream_sequence, delivered });
                }
                Err(error) => self.bury(&raw, &error.to_string(), Cause::Unreadable).await,
            }
        }
        (in_hand, deliveries)
    }

    pub(crate) async fn settle(&self, message: &InHand, verdict: Verdict, limits: Limits) {
        match verdict {
            Verdict::Done => answer(&message.raw, AckKind::Ack).await,
            Verdict::Again(_) if limits.is_last(message.delivered) => {
                self.give_up(message, "it was put off every time").await;
            }
            Verdict::Again(pause) => answer(&message.raw, AckKind::Nak(Some(pause))).await,
            Verdict::Dead(reason) => self.bury(&message.raw, &reason, Cause::Verdict).await,
        }
    }

    /// The handler failed over this message.
    pub(crate) async fn fail(&self, message: &InHand, reason: &str, limits: Limits) {
        if limits.is_last(message.delivered) {
            self.give_up(message, reason).await;
        } else {
            let pause = self.settings.retry_after(message.delivered);
            answer(&message.raw, AckKind::Nak(Some(pause))).await;
        }
    }

    async fn give_up(&self, message: &InHand, reason: &str) {
        let reason = format!("not handled in {} deliveries: {reason}", message.delivered);
        self.bury(&message.raw, &reason, Cause::Deliveries).await;
    }

    /// Lays a message aside, and only when that is certain takes it from the stream.
    async fn bury(&self, raw: &jetstream::Message, reason: &str, cause: Cause) {
        let Self { bus, stream, consumer, settings } = self;
        let Ok(info) = raw.info() else { return };
        let grave = Grave {
            stream,
            consumer,
            sequence: info.stream_sequence,
            stored_at: info.published.unix_timestamp_nanos(),
            delivered: u64::try_from(info.delivered).unwrap_or(1),
            subject: &raw.subject,
        };
        match bus.bury(&grave, raw.headers.as_ref(), raw.payload.clone(), reason, cause).await {
            Ok(()) => answer(raw, AckKind::Term).await,
            Err(error) => {
                tracing::error!(%consumer, %error, "a dead letter could not be stored");
                answer(raw, AckKind::Nak(Some(settings.retry_max))).await;
            }
        }
    }
}

/// Tells the server. If it does not hear it, it delivers the message again after its time-out.
pub(crate) async fn answer(message: &jetstream::Message, kind: AckKind) {
    let deadline = tokio::time::Instant::now() + ANSWER_WITHIN;
    match until(deadline, message.ack_with(kind)).await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::warn!(%error, "a message could not be answered"),
        None => tracing::warn!("a message could not be answered in time"),
    }
}
