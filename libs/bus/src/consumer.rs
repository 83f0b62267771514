//! Durable work: each message is handled, tried again later, or laid aside.

use std::time::{Duration, Instant};

use async_nats::jetstream::AckKind;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field};

use crate::connect::until;
use crate::dead_letter::{Cause, Grave};
use crate::delivery::tie;
use crate::durable::{Durable, Limits, Work};
use crate::{BoxError, Bus, Delivery, Message};

/// Handing an answer to the connection; longer only while NATS is away, and then the message comes again anyway.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was handled, now or before.
    Done,
    /// It cannot be handled now; deliver it again after this time.
    Again(Duration),
    /// It can never be handled: lay it aside with this reason.
    Dead(String),
}

/// How much is taken at once, and how patiently.
#[derive(Debug, Clone, Copy)]
pub struct ConsumerSettings {
    /// Messages in one batch, at most.
    pub batch: usize,
    /// How long the server holds an empty pull open. Also bounds how long a lost pull goes unnoticed.
    pub wait: Duration,
    /// Pause after a batch failed; doubled with every failure in a row.
    pub retry_min: Duration,
    /// The longest such pause.
    pub retry_max: Duration,
}

impl Default for ConsumerSettings {
    /// 64 messages, 2 s, pauses from 200 ms to 10 s.
    fn default() -> Self {
        Self {
            batch: 64,
            wait: Duration::from_secs(2),
            retry_min: Duration::from_millis(200),
            retry_max: Duration::from_secs(10),
        }
    }
}

impl ConsumerSettings {
    pub(crate) fn retry_after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.retry_min.saturating_mul(1 << doublings).min(self.retry_max)
    }
}

/// A durable consumer that somebody else made (`stampede provision`), and this process works for.
#[derive(Clone)]
pub struct Consumer {
    durable: Durable,
}

impl Consumer {
    /// The consumer `consumer` of `stream`. It need not exist yet.
    pub fn new(
        bus: Bus,
        stream: impl Into<String>,
        consumer: impl Into<String>,
        settings: ConsumerSettings,
    ) -> Self {
        Self { durable: Durable { bus, stream: stream.into(), consumer: consumer.into(), settings } }
    }

    /// Hands batches to `handler` until `shutdown`, and finishes the batch in hand. While stream, consumer or server
    /// are missing it waits.
    ///
    /// The handler gives one verdict per message, in their order. On `Err`, and when it takes longer than three
    /// quarters of the consumer's `ack_wait`, the whole batch comes again after a pause. What comes back for the last
    /// time the server allows becomes a dead letter, and so does what is no CloudEvent.
    ///
    /// # Errors
    /// None while it runs: it returns `Ok` after `shutdown`. The type fits what a supervisor wants to start.
    pub async fn run<H, Fut>(self, shutdown: CancellationToken, handler: H) -> Result<(), BoxError>
    where
        H: FnMut(Vec<Delivery>) -> Fut + Send,
        Fut: Future<Output = Result<Vec<Verdict>, BoxError>> + Send,
    {
        let durable = self.durable.clone();
        durable.run(&shutdown, Handling { durable: self.durable, handler }).await
    }
}

struct Handling<H> {
    durable: Durable,
    handler: H,
}

/// A message that the handler gets to see, and its raw form for the answer.
struct InHand {
    raw: async_nats::jetstream::Message,
    delivered: u64,
}

impl<H, Fut> Work for Handling<H>
where
    H: FnMut(Vec<Delivery>) -> Fut + Send,
    Fut: Future<Output = Result<Vec<Verdict>, BoxError>> + Send,
{
    async fn work(
        &mut self,
        batch: Vec<async_nats::jetstream::Message>,
        limits: Limits,
        failures: u32,
    ) -> Result<(), BoxError> {
        let (in_hand, deliveries) = self.durable.read(batch).await;
        if deliveries.is_empty() {
            return Ok(());
        }
        let again = Verdict::Again(self.durable.settings.retry_after(failures + 1));
        let (verdicts, result) = match self.handle(deliveries, limits).await {
            Ok(verdicts) => (verdicts, Ok(())),
            Err(error) => (vec![again; in_hand.len()], Err(error)),
        };
        for (message, verdict) in in_hand.into_iter().zip(verdicts) {
            self.durable.settle(&message, verdict, limits).await;
        }
        result
    }
}

impl<H, Fut> Handling<H>
where
    H: FnMut(Vec<Delivery>) -> Fut + Send,
    Fut: Future<Output = Result<Vec<Verdict>, BoxError>> + Send,
{
    /// One verdict for each delivery, or an error.
    async fn handle(&mut self, deliveries: Vec<Delivery>, limits: Limits) -> Result<Vec<Verdict>, BoxError> {
        let Durable { bus, consumer, .. } = &self.durable;
        let count = deliveries.len();
        let span = tracing::info_span!(
            "process",
            otel.name = format!("process {consumer}"),
            otel.kind = "consumer",
            messaging.system = "nats",
            messaging.operation.name = "process",
            messaging.consumer.group.name = consumer,
            messaging.batch.message_count = count,
            otel.status_code = field::Empty,
        );
        tie(&span, &deliveries);
        let started = Instant::now();
        let handling = (self.handler)(deliveries).instrument(span.clone());
        let result = match tokio::time::timeout(limits.handle_within, handling).await {
            Ok(Ok(verdicts)) if verdicts.len() != count => {
                Err(format!("{} verdicts for {count} messages", verdicts.len()).into())
            }
            Ok(result) => result,
            Err(_) => Err(format!("not handled within {:?}", limits.handle_within).into()),
        };
        let error = result.is_err().then_some("failed");
        if error.is_some() {
            span.record("otel.status_code", "ERROR");
        }
        bus.metrics().process(consumer, error, started.elapsed());
        result
    }
}

impl Durable {
    /// Reads the messages; lays those aside that are no events.
    async fn read(&self, batch: Vec<async_nats::jetstream::Message>) -> (Vec<InHand>, Vec<Delivery>) {
        let mut in_hand = Vec::with_capacity(batch.len());
        let mut deliveries = Vec::with_capacity(batch.len());
        for raw in batch {
            let Ok(info) = raw.info() else {
                tracing::error!(subject = %raw.subject, "what a consumer delivered is no message of JetStream");
                continue;
            };
            let delivered = u64::try_from(info.delivered).unwrap_or(1);
            let stream_sequence = info.stream_sequence;
            match Message::from_nats(&raw.message) {
                Ok(message) => {
                    deliveries.push(Delivery { message, delivered, stream_sequence });
                    in_hand.push(InHand { raw, delivered });
                }
                Err(error) => self.bury(&raw, &error.to_string(), Cause::Unreadable).await,
            }
        }
        (in_hand, deliveries)
    }

    async fn settle(&self, message: &InHand, verdict: Verdict, limits: Limits) {
        match verdict {
            Verdict::Done => answer(&message.raw, AckKind::Ack).await,
            Verdict::Again(_) if limits.is_last(message.delivered) => {
                let reason = format!("not handled in {} deliveries", message.delivered);
                self.bury(&message.raw, &reason, Cause::Deliveries).await;
            }
            Verdict::Again(pause) => answer(&message.raw, AckKind::Nak(Some(pause))).await,
            Verdict::Dead(reason) => self.bury(&message.raw, &reason, Cause::Verdict).await,
        }
    }

    /// Lays a message aside, and only when that is certain takes it from the stream.
    async fn bury(&self, raw: &async_nats::jetstream::Message, reason: &str, cause: Cause) {
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
pub(crate) async fn answer(message: &async_nats::jetstream::Message, kind: AckKind) {
    let deadline = tokio::time::Instant::now() + ANSWER_WITHIN;
    match until(deadline, message.ack_with(kind)).await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::warn!(%error, "a message could not be answered"),
        None => tracing::warn!("a message could not be answered in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_maximum() {
        let settings = ConsumerSettings::default();
        let pauses: Vec<u128> = (1..9).map(|failures| settings.retry_after(failures).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(settings.retry_after(u32::MAX), settings.retry_max);
    }
}
