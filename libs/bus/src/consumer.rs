//! Durable work: each message is handled, tried again later, or laid aside.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant as Clock};

use async_nats::jetstream;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field};

use crate::connect::until;
use crate::delivery::tie;
use crate::durable::{Durable, Limits, Work};
use crate::settle::InHand;
use crate::{BoxError, Bus, Delivery};

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
    /// How long the server holds an empty pull open. So long may a stop take, and a second more until a lost pull is
    /// noticed.
    pub wait: Duration,
    /// Rest after every batch, in which messages gather: for work that nobody waits for, so that under load it is done
    /// many at a time. Zero where somebody waits.
    pub gather: Duration,
    /// Pause before a message that could not be handled comes again; doubled with every delivery.
    pub retry_min: Duration,
    /// The longest such pause.
    pub retry_max: Duration,
}

impl Default for ConsumerSettings {
    /// 64 messages, 1 s, no rest, pauses from 200 ms to 30 s.
    fn default() -> Self {
        Self {
            batch: 64,
            wait: Duration::from_secs(1),
            gather: Duration::ZERO,
            retry_min: Duration::from_millis(200),
            retry_max: Duration::from_secs(30),
        }
    }
}

impl ConsumerSettings {
    /// The pause after so many failures in a row.
    pub(crate) fn retry_after(&self, failures: u64) -> Duration {
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
    /// The handler gives one verdict per message, in their order. When it fails, panics, or takes longer than three
    /// quarters of the consumer's `ack_wait`, each message of the batch is handed to it alone; what fails alone comes
    /// again after a pause, and what fails on the last delivery that the server allows becomes a dead letter. So does
    /// what is no CloudEvent.
    ///
    /// # Errors
    /// None while it runs: it returns `Ok` after `shutdown`. The type fits what a supervisor wants to start.
    // Boxed, because the compiler cannot see through the handler's type that the whole future is `Send`.
    pub fn run<H, Fut>(
        self,
        shutdown: CancellationToken,
        handler: H,
    ) -> BoxFuture<'static, Result<(), BoxError>>
    where
        H: FnMut(Vec<Delivery>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Vec<Verdict>, BoxError>> + Send + 'static,
    {
        let durable = self.durable.clone();
        async move { durable.run(&shutdown, Handling { durable: self.durable, handler }).await }.boxed()
    }
}

struct Handling<H> {
    durable: Durable,
    handler: H,
}

impl<H, Fut> Work for Handling<H>
where
    H: FnMut(Vec<Delivery>) -> Fut + Send,
    Fut: Future<Output = Result<Vec<Verdict>, BoxError>> + Send,
{
    async fn work(&mut self, batch: Vec<jetstream::Message>, limits: Limits) -> Result<(), BoxError> {
        let deadline = Instant::now() + limits.handle_within;
        let (in_hand, deliveries) = self.durable.read(batch).await;
        if deliveries.is_empty() {
            return Ok(());
        }
        match self.handle(deliveries, deadline).await {
            Ok(verdicts) => {
                for (message, verdict) in in_hand.iter().zip(verdicts) {
                    self.durable.settle(message, verdict, limits).await;
                }
                Ok(())
            }
            Err(error) if in_hand.len() == 1 => {
                self.durable.fail(&in_hand[0], &error.to_string(), limits).await;
                Err(error)
            }
            Err(error) => {
                tracing::warn!(
                    consumer = self.durable.consumer,
                    error = &*error as &dyn std::error::Error,
                    "a batch failed; its messages are handled one by one"
                );
                self.one_by_one(&in_hand, deadline, limits, error).await
            }
        }
    }
}

impl<H, Fut> Handling<H>
where
    H: FnMut(Vec<Delivery>) -> Fut + Send,
    Fut: Future<Output = Result<Vec<Verdict>, BoxError>> + Send,
{
    /// One message that the handler fails over must not take the others along to the dead letters. Fails when
    /// nothing could be handled.
    async fn one_by_one(
        &mut self,
        in_hand: &[InHand],
        deadline: Instant,
        limits: Limits,
        mut failure: BoxError,
    ) -> Result<(), BoxError> {
        let mut handled = 0;
        for message in in_hand {
            let alone = match message.delivery() {
                Some(delivery) if Instant::now() < deadline => self.handle(vec![delivery], deadline).await,
                _ => Err("there was no time left for it".into()),
            };
            match alone {
                Ok(verdicts) => {
                    handled += 1;
                    for verdict in verdicts {
                        self.durable.settle(message, verdict, limits).await;
                    }
                }
                Err(error) => {
                    self.durable.fail(message, &error.to_string(), limits).await;
                    failure = error;
                }
            }
        }
        if handled > 0 { Ok(()) } else { Err(failure) }
    }

    /// One verdict for each delivery, or an error; a panic is one.
    async fn handle(
        &mut self,
        deliveries: Vec<Delivery>,
        deadline: Instant,
    ) -> Result<Vec<Verdict>, BoxError> {
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
        let started = Clock::now();
        let handler = &mut self.handler;
        let handling = async move { handler(deliveries).await }.instrument(span.clone());
        let result = match until(deadline, AssertUnwindSafe(handling).catch_unwind()).await {
            Some(Ok(Ok(verdicts))) if verdicts.len() != count => {
                Err(format!("{} verdicts for {count} messages", verdicts.len()).into())
            }
            Some(Ok(result)) => result,
            Some(Err(_)) => Err("the handler panicked".into()),
            None => Err("the handler took too long".into()),
        };
        let error = result.is_err().then_some("failed");
        if error.is_some() {
            span.record("otel.status_code", "ERROR");
        }
        bus.metrics().process(consumer, error, started.elapsed());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_maximum() {
        let settings = ConsumerSettings::default();
        let pauses: Vec<u128> = (1..10).map(|failures| settings.retry_after(failures).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000]);
        assert_eq!(settings.retry_after(u64::MAX), settings.retry_max);
    }
}
