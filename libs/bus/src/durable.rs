//! The loop around a durable consumer: bind, pull, hand over, bind again when it is gone.

use std::time::Duration;

use async_nats::jetstream::Message;
use stampede_retry::Backoff;
use tokio_util::sync::CancellationToken;

use crate::jetstream::ConsumerInfo;
use crate::pull::{Lost, Pull};
use crate::{BoxError, Bus, ConsumerSettings, stopping};

/// Pauses between attempts to find a consumer that is not there.
const BIND_BASE: Duration = Duration::from_millis(100);
const BIND_MAX: Duration = Duration::from_secs(2);
/// How long a pull waits that only looks whether there is more, while messages are in hand.
const POLL_WAIT: Duration = Duration::from_millis(10);
/// Where a consumer names no acknowledgement time-out, the server takes this.
const ACK_WAIT_DEFAULT: Duration = Duration::from_secs(30);

/// A durable consumer that somebody else made.
#[derive(Clone)]
pub(crate) struct Durable {
    pub(crate) bus: Bus,
    pub(crate) stream: String,
    pub(crate) consumer: String,
    pub(crate) settings: ConsumerSettings,
}

/// What the consumer's configuration asks of whoever handles its messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// After so long without a word the server delivers a message again.
    ack_wait: Duration,
    /// The delivery after which the server gives up.
    max_deliver: Option<u64>,
}

impl Limits {
    fn of(info: &ConsumerInfo) -> Self {
        let ack_wait =
            Some(info.config.ack_wait()).filter(|wait| !wait.is_zero()).unwrap_or(ACK_WAIT_DEFAULT);
        Self { ack_wait, max_deliver: info.config.max_deliver() }
    }

    /// For one batch: what is too much for it is better tried in smaller ones.
    pub(crate) fn handle_within(self) -> Duration {
        self.ack_wait * 3 / 4
    }

    /// How often the server hears that a message is worked on. Also the longest pause while messages are in hand: both
    /// together are half of its patience.
    pub(crate) fn renew_every(self) -> Duration {
        self.ack_wait / 4
    }

    /// Whether the server will not deliver it again whatever it is told.
    pub(crate) fn is_last(self, delivered: u64) -> bool {
        self.max_deliver.is_some_and(|max| delivered >= max)
    }
}

/// What is done with messages.
pub(crate) trait Work: Send {
    /// Messages that it has kept for later.
    fn kept(&self) -> usize {
        0
    }

    /// When the first of them is due.
    fn due_in(&self) -> Duration {
        Duration::ZERO
    }

    /// How many more it takes now.
    fn room(&self) -> usize;

    /// Deals with what was fetched and with what it kept. On `Err` nothing of it could be handled, and a pause is due.
    fn work(
        &mut self,
        fetched: Vec<Message>,
        limits: Limits,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Lets others have what it kept.
    fn give_back(&mut self) -> impl Future<Output = ()> + Send;
}

impl Durable {
    /// Works until `shutdown`, and finishes the pull and the batch in hand, within [`STOP_WITHIN`](crate::STOP_WITHIN).
    pub(crate) async fn run(self, shutdown: &CancellationToken, work: impl Work) -> Result<(), BoxError> {
        stopping(shutdown, self.work(shutdown, work)).await.unwrap_or(Ok(()))
    }

    async fn work(&self, shutdown: &CancellationToken, mut work: impl Work) -> Result<(), BoxError> {
        let find_again = Backoff::try_new(BIND_BASE, BIND_MAX)?;
        let mut attempt = 0;
        while !shutdown.is_cancelled() {
            let lost = match self.bind().await {
                Ok((limits, pull)) => {
                    tracing::info!(stream = self.stream, consumer = self.consumer, "consumer bound");
                    attempt = 0;
                    match self.consume(pull, limits, shutdown, &mut work).await {
                        Ok(()) => break,
                        Err(lost) => lost,
                    }
                }
                Err(lost) => lost,
            };
            self.bus
                .metrics()
                .rebinds
                .add(1, &[opentelemetry::KeyValue::new("consumer", self.consumer.clone())]);
            // Once for the event, quietly while it lasts.
            if attempt == 0 {
                tracing::warn!(stream = self.stream, consumer = self.consumer, reason = %lost, "waiting for the consumer");
            }
            let pause = find_again.delay(attempt, &mut rand::rng());
            attempt = attempt.saturating_add(1);
            let _ = shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        work.give_back().await;
        self.flush_acks().await;
        Ok(())
    }

    async fn bind(&self) -> Result<(Limits, Pull), Lost> {
        let info = self.bus.consumer_info(&self.stream, &self.consumer).await?;
        let info = info.ok_or_else(|| Lost("there is no such stream or consumer".to_owned()))?;
        let pull = Pull::open(&self.bus, &self.stream, &self.consumer).await?;
        Ok((Limits::of(&info), pull))
    }

    async fn consume(
        &self,
        mut pull: Pull,
        limits: Limits,
        shutdown: &CancellationToken,
        work: &mut impl Work,
    ) -> Result<(), Lost> {
        let mut failures: u32 = 0;
        while !shutdown.is_cancelled() {
            let wait = match work.kept() {
                0 => self.settings.wait,
                _ => work.due_in().min(self.settings.wait).min(limits.renew_every()),
            };
            let fetched = match work.room() {
                0 => {
                    let _ = shutdown.run_until_cancelled(tokio::time::sleep(wait)).await;
                    Vec::new()
                }
                room => pull.fetch(room, wait.max(POLL_WAIT)).await?.messages,
            };
            if fetched.is_empty() && work.kept() == 0 {
                continue;
            }
            match work.work(fetched, limits).await {
                Ok(()) => {
                    failures = 0;
                    if !self.settings.gather.is_zero() && work.kept() == 0 {
                        let _ = shutdown.run_until_cancelled(tokio::time::sleep(self.settings.gather)).await;
                    }
                }
                Err(error) => {
                    failures += 1;
                    tracing::error!(
                        consumer = self.consumer,
                        failures,
                        error = &*error as &dyn std::error::Error,
                        "nothing could be handled"
                    );
                    let pause = self.settings.retry_after(failures.into()).min(limits.renew_every());
                    let _ = shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
                }
            }
        }
        Ok(())
    }

    /// Acknowledgements are only buffered when they are given.
    async fn flush_acks(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.bus.client().flush()).await;
    }
}
