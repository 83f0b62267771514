//! The publishing side: a loop that empties the partitions it holds.

use std::pin::pin;
use std::time::Duration;

use stampede_bus::{Bus, PublishError};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Outcome, Row};
use crate::metrics::Metrics;
use crate::pauses::Pauses;
use crate::session::{Notice, PULSE, Session, SessionError};
use crate::{BoxError, Outbox};

/// Before another connection is tried.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// How a relay works.
#[derive(Debug, Clone, Copy)]
pub struct RelaySettings {
    /// Messages read, published and deleted at once, at most.
    pub batch: u16,
    /// How long it waits before it looks without having been woken: for rows whose wake-up was lost, and for
    /// partitions that became free because their holder died.
    pub idle_poll: Duration,
}

impl Default for RelaySettings {
    /// 256 messages, 1 s.
    fn default() -> Self {
        Self { batch: 256, idle_poll: Duration::from_secs(1) }
    }
}

/// Publishes what an [`Outbox`] holds. Every replica runs one; each partition is published by one of them at a time.
#[derive(Debug, Clone)]
pub struct Relay {
    outbox: Outbox,
    bus: Bus,
    settings: RelaySettings,
    metrics: Metrics,
}

impl Relay {
    /// A relay for `outbox`, one for each process.
    pub fn new(outbox: Outbox, bus: Bus, settings: RelaySettings) -> Self {
        let settings = RelaySettings { batch: settings.batch.max(1), ..settings };
        Self { outbox, bus, settings, metrics: Metrics::new() }
    }

    /// Publishes until `shutdown`, finishes the wave in hand, and gives its partitions to others. While the database
    /// or NATS are away it waits for them.
    ///
    /// # Errors
    /// When the table holds rows of a partition this process does not know of: somebody runs with another number.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        while !shutdown.is_cancelled() {
            match self.session(&shutdown).await {
                Ok(()) => {}
                Err(error @ SessionError::UnknownPartition { .. }) => return Err(error.into()),
                Err(error) => {
                    let error: BoxError = error.into();
                    tracing::warn!(error, "the outbox relay connects again");
                    shutdown.run_until_cancelled(sleep(RECONNECT_PAUSE)).await;
                }
            }
            self.metrics.held(0);
        }
        Ok(())
    }

    /// As long as one connection lives.
    async fn session(&self, shutdown: &CancellationToken) -> Result<(), SessionError> {
        let mut session = Session::open(&self.outbox).await?;
        let mut pauses = Pauses::default();
        let mut look_around_at = Instant::now();
        while !shutdown.is_cancelled() {
            if session.was_released() || look_around_at <= Instant::now() {
                self.look_around(&mut session).await?;
                look_around_at = Instant::now() + self.settings.idle_poll;
            }
            let rows = self.read(&mut session, &pauses).await?;
            let may_be_more = rows.len() >= usize::from(self.settings.batch);
            if !rows.is_empty() {
                let outcome = self.publish_alive(rows, &mut session, shutdown).await?;
                session.delete(&outcome.stored).await?;
                rest(&mut pauses, &outcome);
            }
            if may_be_more {
                continue;
            }
            // Whoever wrote a row meanwhile has left a nudge or a notification, so nothing has to be read to find out.
            let wake_at =
                pauses.next_end(Instant::now()).map_or(look_around_at, |end| end.min(look_around_at));
            if self.wait(&mut session, wake_at, shutdown).await? == Some(Notice::Released) {
                look_around_at = Instant::now();
            }
        }
        session.close().await
    }

    /// What is done once in an idle poll, busy or not.
    async fn look_around(&self, session: &mut Session) -> Result<(), SessionError> {
        if session.take_free_partitions().await? {
            let held = self.outbox.partitions().held();
            tracing::info!(partitions = ?held, "this process publishes the outbox");
            self.metrics.held(held.len());
        }
        let oldest = session.oldest(&self.outbox.partitions().held()).await?;
        self.metrics.oldest(oldest);
        Ok(())
    }

    async fn read(&self, session: &mut Session, pauses: &Pauses) -> Result<Vec<Row>, SessionError> {
        let now = Instant::now();
        let mut ready = self.outbox.partitions().held();
        ready.retain(|partition| !pauses.rests(*partition, now));
        if ready.is_empty() {
            return Ok(Vec::new());
        }
        session.read(&ready, self.settings.batch).await
    }

    /// Until there may be something to do.
    async fn wait(
        &self,
        session: &mut Session,
        wake_at: Instant,
        shutdown: &CancellationToken,
    ) -> Result<Option<Notice>, SessionError> {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                () = self.outbox.nudged() => return Ok(None),
                () = sleep_until(wake_at) => return Ok(None),
                notice = session.notified() => return notice.map(Some),
                () = sleep(PULSE) => session.show_life().await?,
            }
        }
    }

    /// Publishes while the session shows that it lives. Whoever lost the locks stops at once: another relay has the
    /// same rows.
    async fn publish_alive(
        &self,
        rows: Vec<Row>,
        session: &mut Session,
        shutdown: &CancellationToken,
    ) -> Result<Outcome<PublishError>, SessionError> {
        let mut publishing = pin!(self.publish(rows, shutdown));
        loop {
            tokio::select! {
                outcome = &mut publishing => return Ok(outcome),
                () = sleep(PULSE) => session.show_life().await?,
            }
        }
    }

    async fn publish(&self, rows: Vec<Row>, shutdown: &CancellationToken) -> Outcome<PublishError> {
        let started = Instant::now();
        let mut batch = Batch::new(rows);
        while !shutdown.is_cancelled()
            && let Some(wave) = batch.next_wave()
        {
            let results = self.bus.publish_all(&wave.messages).await;
            batch.settle(wave, results);
        }
        let outcome = batch.into_outcome();
        self.metrics.published(&outcome, started.elapsed());
        outcome
    }
}

/// Lets the partitions in which something failed rest. Progress, even if a failure ended it, starts the rests anew: a
/// stream that is full and being emptied takes a few messages every time.
fn rest(pauses: &mut Pauses, outcome: &Outcome<PublishError>) {
    for place in &outcome.stored {
        pauses.succeeded(place.partition);
    }
    for (partition, error) in &outcome.stopped {
        tracing::warn!(partition, %error, "a message of the outbox was not stored; its partition rests");
        pauses.failed(*partition, Instant::now());
    }
}
