//! Answering the server for each message: done, still worked on, given back, or laid aside.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::AckKind;
use tokio::time::Instant;

use crate::connect::until;
use crate::dead_letter::{Cause, Grave};
use crate::durable::{Durable, Limits};
use crate::{Delivery, NotAnEvent, PublishError, Verdict};

/// Handing an answer to the connection; longer only while NATS is away, and then the message comes again anyway.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A message that was delivered and has no answer yet.
pub(crate) struct InHand {
    raw: jetstream::Message,
    stream_sequence: u64,
    stored_at: i128,
    delivered: u64,
    /// When the server was last told that it is worked on.
    progress_at: Instant,
    /// How often it alone took too long.
    pub(crate) timeouts: u32,
    /// How often it alone could not be handled, for whatever reason outside of it.
    pub(crate) failures: u64,
    /// When it is tried again, after it failed alone.
    pub(crate) retry_at: Option<Instant>,
    /// What the handler gets to see, if it is an event.
    pub(crate) delivery: Result<Delivery, NotAnEvent>,
}

impl InHand {
    pub(crate) fn read(raw: jetstream::Message) -> Option<Self> {
        let Ok(info) = raw.info() else {
            tracing::error!(subject = %raw.subject, "what a consumer delivered is no message of JetStream");
            return None;
        };
        let (stream_sequence, stored_at) = (info.stream_sequence, info.published.unix_timestamp_nanos());
        let delivered = u64::try_from(info.delivered).unwrap_or(1);
        let delivery = Delivery::read(&raw.message, delivered, stream_sequence);
        Some(Self {
            raw,
            stream_sequence,
            stored_at,
            delivered,
            progress_at: Instant::now(),
            timeouts: 0,
            failures: 0,
            retry_at: None,
            delivery,
        })
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.stream_sequence, self.stored_at) == (other.stream_sequence, other.stored_at)
    }

    /// Tells the server that it is worked on, if that is due: so it is not delivered again, and uses up no delivery.
    pub(crate) async fn renew(&mut self, limits: Limits) {
        if self.progress_at.elapsed() >= limits.renew_every() {
            answer(&self.raw, AckKind::Progress).await;
            self.progress_at = Instant::now();
        }
    }

    /// Lets the server deliver it again after `pause`.
    pub(crate) async fn give_back(&self, pause: Duration) {
        answer(&self.raw, AckKind::Nak(Some(pause).filter(|pause| !pause.is_zero()))).await;
    }
}

impl Durable {
    pub(crate) async fn settle(
        &self,
        message: &InHand,
        verdict: Verdict,
        cause: Cause,
    ) -> Result<(), PublishError> {
        match verdict {
            Verdict::Done => answer(&message.raw, AckKind::Ack).await,
            Verdict::Dead(reason) => self.bury(message, &reason, cause).await?,
        }
        Ok(())
    }

    /// The message is at fault.
    pub(crate) async fn fail(
        &self,
        message: &InHand,
        reason: &str,
        limits: Limits,
    ) -> Result<(), PublishError> {
        if limits.is_last(message.delivered) {
            let reason = format!("not handled in {} deliveries: {reason}", message.delivered);
            return self.bury(message, &reason, Cause::Deliveries).await;
        }
        message.give_back(self.settings.retry_after(message.delivered)).await;
        Ok(())
    }

    /// Lays a message aside, and only when that is certain takes it from the stream.
    async fn bury(&self, message: &InHand, reason: &str, cause: Cause) -> Result<(), PublishError> {
        let Self { bus, stream, consumer, .. } = self;
        let InHand { raw, stream_sequence: sequence, stored_at, delivered, .. } = message;
        let grave = Grave {
            stream,
            consumer,
            sequence: *sequence,
            stored_at: *stored_at,
            delivered: *delivered,
            subject: &raw.subject,
        };
        bus.bury(&grave, raw.headers.as_ref(), raw.payload.clone(), reason, cause).await?;
        answer(raw, AckKind::Term).await;
        Ok(())
    }
}

/// Tells the server. If it does not hear it, it delivers the message again after its time-out.
pub(crate) async fn answer(message: &jetstream::Message, kind: AckKind) {
    let deadline = Instant::now() + ANSWER_WITHIN;
    match until(deadline, message.ack_with(kind)).await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::warn!(%error, "a message could not be answered"),
        None => tracing::warn!("a message could not be answered in time"),
    }
}
