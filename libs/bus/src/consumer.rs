//! Durable work: each message is handled, tried again later, or laid aside.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::{Duration, Instant as Clock};

use async_nats::jetstream;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field};

use crate::connect::until;
use crate::dead_letter::Cause;
use crate::delivery::tie;
use crate::durable::{Durable, Limits, Work};
use crate::settle::InHand;
use crate::{BoxError, Bus, Delivery};

/// A message that alone takes too long gets twice the time at every retry, up to 2³ times.
const TIME_DOUBLINGS_MAX: u32 = 3;

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was handled, now or before.
    Done,
    /// It can never be handled: it becomes a dead letter with this reason.
    Dead(String),
}

/// Why a batch has no verdicts. Any error converts into an [`Outage`](Self::Outage), because a dead letter is wrong where
/// waiting helps.
// Not an error itself, so that every error can convert into it.
#[derive(Debug)]
pub enum Failure {
    /// Something that the handler needs is unavailable. The messages stay with this process and are tried until it is
    /// back; that uses up none of their deliveries.
    Outage(BoxError),
    /// One of the messages is at fault, and would be again tomorrow: a rule of the database forbids what it says. Tried
    /// alone, it uses up a delivery, and after the last it is a dead letter.
    Fault(BoxError),
}

impl<E: Into<BoxError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Outage(error.into())
    }
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
    /// Pause before a retry, doubled with every failure.
    pub retry_min: Duration,
    /// The longest such pause. While messages are in hand a quarter of `ack_wait` is the longest.
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

    /// Hands batches to `handler` until `shutdown`, and finishes the batch in hand, within
    /// [`STOP_WITHIN`](crate::STOP_WITHIN). While stream, consumer or server are missing it waits.
    ///
    /// The handler gives one verdict per message, in their order. When it fails, the next batch has half as many
    /// messages, and after a success twice as many, so that one message takes no other along. An [outage](Failure), and
    /// a batch that takes longer than three quarters of the consumer's `ack_wait`, use up no deliveries: the messages
    /// stay in hand, the server hears that they are worked on, and they are tried again after a pause. Only what fails
    /// alone and by its own [fault](Failure), a panic among them, is given back to the server; on the last delivery that
    /// it allows it becomes a dead letter. So does what is no CloudEvent.
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
        Fut: Future<Output = Result<Vec<Verdict>, Failure>> + Send + 'static,
    {
        let durable = self.durable.clone();
        let size = durable.settings.batch;
        let handling = Handling { durable: self.durable, handler, size, in_hand: VecDeque::new() };
        async move { durable.run(&shutdown, handling).await }.boxed()
    }
}

struct Handling<H> {
    durable: Durable,
    handler: H,
    /// Messages in the next batch, at most.
    size: usize,
    /// What was delivered and has no answer yet, in the order in which it is tried.
    in_hand: VecDeque<InHand>,
}

impl<H, Fut> Work for Handling<H>
where
    H: FnMut(Vec<Delivery>) -> Fut + Send,
    Fut: Future<Output = Result<Vec<Verdict>, Failure>> + Send,
{
    fn kept(&self) -> usize {
        self.in_hand.len()
    }

    fn due_in(&self) -> Duration {
        let now = Instant::now();
        let pause = |message: &InHand| message.retry_at.map(|at| at.saturating_duration_since(now));
        self.in_hand.iter().map(|message| pause(message).unwrap_or_default()).min().unwrap_or_default()
    }

    /// Besides what is kept. In an outage one more message shows no less than many.
    fn room(&self) -> usize {
        self.size.min(self.durable.settings.batch.saturating_sub(self.kept()))
    }

    async fn work(&mut self, fetched: Vec<jetstream::Message>, limits: Limits) -> Result<(), BoxError> {
        for message in fetched.into_iter().filter_map(InHand::read) {
            // The server delivers a message again when it did not hear in time that it is worked on.
            self.in_hand.retain(|kept| !kept.is_same(&message));
            self.in_hand.push_back(message);
        }
        self.renew(limits).await;
        let count = self.next_batch();
        if count == 0 {
            return Ok(());
        }
        let began = Instant::now();
        match self.handle(count, limits).await {
            Ok(verdicts) => {
                self.size = self.size.saturating_mul(2).min(self.durable.settings.batch);
                self.settle(verdicts).await
            }
            Err(failure) => {
                self.size = (count / 2).max(1);
                self.fail(failure, count, began.elapsed(), limits).await
            }
        }
    }

    async fn give_back(&mut self) {
        for message in self.in_hand.drain(..) {
            message.give_back(Duration::ZERO).await;
        }
    }
}

impl<H, Fut> Handling<H>
where
    H: FnMut(Vec<Delivery>) -> Fut + Send,
    Fut: Future<Output = Result<Vec<Verdict>, Failure>> + Send,
{
    /// Moves the next batch to the front and returns its size. A message that failed alone is tried again alone, when its
    /// pause is over; until then it holds up no other.
    fn next_batch(&mut self) -> usize {
        let now = Instant::now();
        self.in_hand.make_contiguous().sort_by_key(|message| match message.retry_at {
            Some(at) if at <= now => (0, Some(at)),
            None => (1, None),
            paused => (2, paused),
        });
        let fresh = self.in_hand.iter().take_while(|message| message.retry_at.is_none()).count();
        match self.in_hand.front().and_then(|first| first.retry_at) {
            Some(at) => usize::from(at <= now),
            None => self.size.min(fresh),
        }
    }

    /// Answers the first messages. What cannot become a dead letter now stays in hand.
    async fn settle(&mut self, verdicts: Vec<(Verdict, Cause)>) -> Result<(), BoxError> {
        let mut result = Ok(());
        for (verdict, cause) in verdicts {
            let Some(message) = self.in_hand.pop_front() else { break };
            if let Err(error) = self.durable.settle(&message, verdict, cause).await {
                self.in_hand.push_back(message);
                result = Err(error.into());
            }
        }
        result
    }

    /// Decides about the first `count` messages, of which the handler said nothing.
    async fn fail(
        &mut self,
        failure: Failure,
        count: usize,
        took: Duration,
        limits: Limits,
    ) -> Result<(), BoxError> {
        let consumer = &self.durable.consumer;
        for delivery in self.in_hand.iter_mut().take(count).flat_map(|message| &mut message.delivery) {
            delivery.delivered += 1;
        }
        match failure {
            Failure::Fault(error) if count == 1 => {
                let Some(message) = self.in_hand.pop_front() else { return Ok(()) };
                tracing::error!(consumer, error = &*error as &dyn std::error::Error, "a message is at fault");
                let failed = self.durable.fail(&message, &error.to_string(), limits).await;
                if let Err(error) = failed {
                    self.in_hand.push_back(message);
                    return Err(error.into());
                }
                Ok(())
            }
            Failure::Fault(error) => {
                let error = &*error as &dyn std::error::Error;
                tracing::warn!(consumer, error, "a batch failed; it is handled in smaller ones");
                Ok(())
            }
            Failure::Outage(error) => {
                let error = &*error as &dyn std::error::Error;
                if let (1, Some(message)) = (count, self.in_hand.front_mut()) {
                    message.failures += 1;
                    let pause = self.durable.settings.retry_after(message.failures).min(limits.renew_every());
                    // One that takes long to fail gets a quarter of the time at most.
                    message.retry_at = Some(Instant::now() + pause.max(took * 3));
                    if message.failures.is_power_of_two() {
                        let failures = message.failures;
                        tracing::error!(consumer, error, failures, "a message cannot be handled now");
                    }
                } else {
                    tracing::warn!(consumer, error, "a batch failed; it is handled in smaller ones");
                }
                Ok(())
            }
        }
    }

    async fn renew(&mut self, limits: Limits) {
        join_all(self.in_hand.iter_mut().map(|message| message.renew(limits))).await;
    }

    /// A verdict for each of the first `count` messages, or a failure; a panic is a fault.
    async fn handle(&mut self, count: usize, limits: Limits) -> Result<Vec<(Verdict, Cause)>, Failure> {
        let Self { durable: Durable { bus, consumer, .. }, handler, in_hand, .. } = self;
        let batch = in_hand.iter().take(count);
        let doublings = batch.clone().map(|message| message.timeouts).max().unwrap_or(0);
        let deliveries: Vec<Delivery> =
            batch.filter_map(|message| message.delivery.as_ref().ok().cloned()).collect();
        let readable = deliveries.len();
        let mut verdicts = Vec::new().into_iter();
        if readable > 0 {
            let handle_within = limits.handle_within() * (1 << doublings.min(TIME_DOUBLINGS_MAX));
            let span = tracing::info_span!(
                "process",
                otel.name = format!("process {consumer}"),
                otel.kind = "consumer",
                messaging.system = "nats",
                messaging.operation.name = "process",
                messaging.consumer.group.name = consumer,
                messaging.batch.message_count = readable,
                otel.status_code = field::Empty,
            );
            tie(&span, &deliveries);
            let started = Clock::now();
            let handling = async move { handler(deliveries).await }.instrument(span.clone());
            let mut handling = pin!(AssertUnwindSafe(handling).catch_unwind());
            let deadline = Instant::now() + handle_within;
            let ended = loop {
                let renew_at = deadline.min(Instant::now() + limits.renew_every());
                match until(renew_at, handling.as_mut()).await {
                    Some(ended) => break Some(ended),
                    None if Instant::now() >= deadline => break None,
                    None => {
                        join_all(in_hand.iter_mut().map(|message| message.renew(limits))).await;
                    }
                }
            };
            let result = match ended {
                Some(Ok(Ok(verdicts))) if verdicts.len() != readable => {
                    Err(Failure::Fault(format!("{} verdicts for {readable} messages", verdicts.len()).into()))
                }
                Some(Ok(result)) => result,
                Some(Err(_)) => Err(Failure::Fault("the handler panicked".into())),
                None => {
                    if let (1, Some(message)) = (count, in_hand.front_mut()) {
                        message.timeouts += 1;
                    }
                    Err(format!("the handler took longer than {handle_within:?}").into())
                }
            };
            let error = result.is_err().then_some("failed");
            if error.is_some() {
                span.record("otel.status_code", "ERROR");
            }
            bus.metrics().process(consumer, error, started.elapsed());
            verdicts = result?.into_iter();
        }
        let verdict = |message: &InHand| match &message.delivery {
            Ok(_) => Some((verdicts.next()?, Cause::Verdict)),
            Err(error) => Some((Verdict::Dead(error.to_string()), Cause::Unreadable)),
        };
        Ok(in_hand.iter().take(count).filter_map(verdict).collect())
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
