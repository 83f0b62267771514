//! The publishing side: a loop that empties the partitions it holds.

use std::panic::resume_unwind;
use std::time::Duration;

use stampede_bus::{Bus, PublishError};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Outcome};
use crate::lanes::{Destination, Lanes};
use crate::metrics::Metrics;
use crate::session::{Notice, PULSE, Session, SessionError, Window};
use crate::{BoxError, Outbox};

/// Between two reads while something is in flight: each write wakes the relay, most often for a destination whose window
/// is still in flight.
const READ_GAP: Duration = Duration::from_millis(2);
/// Before another connection is tried.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// How a relay works.
#[derive(Debug, Clone, Copy)]
pub struct RelaySettings {
    /// Messages to one destination that are read, published and deleted together, at most.
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

    /// Publishes until `shutdown`, finishes the waves in hand, and gives its partitions to others. While the database
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
        let session = Session::open(&self.outbox).await?;
        let relaying = Relaying {
            relay: self,
            session,
            lanes: Lanes::default(),
            in_flight: JoinSet::new(),
            has_news: true,
            read_at: Instant::now(),
            poll_at: Instant::now(),
        };
        relaying.run(shutdown).await
    }

    /// Publishes a window, one wave after the other; after `shutdown` no further one.
    async fn publish(self, window: Window, shutdown: CancellationToken) -> Finished {
        let started = Instant::now();
        let mut batch = Batch::new(window.rows);
        while !shutdown.is_cancelled()
            && let Some(wave) = batch.next_wave()
        {
            let results = self.bus.publish_all(&wave.messages).await;
            batch.settle(wave, results);
        }
        let outcome = batch.into_outcome();
        self.metrics.published(&outcome, started.elapsed());
        Finished { destination: window.destination, outcome }
    }
}

/// A window that was published.
struct Finished {
    destination: Destination,
    outcome: Outcome<PublishError>,
}

/// A relay's work during one connection. Dropping it ends what is in flight: a relay that lost its locks stops immediately,
/// because another one has the same rows.
struct Relaying<'a> {
    relay: &'a Relay,
    session: Session,
    lanes: Lanes,
    /// One window a destination, so that one that answers late makes only itself late.
    in_flight: JoinSet<Finished>,
    /// Whether there may be something to read.
    has_news: bool,
    /// The earliest time to do so while something is in flight.
    read_at: Instant,
    poll_at: Instant,
}

impl Relaying<'_> {
    async fn run(mut self, shutdown: &CancellationToken) -> Result<(), SessionError> {
        let mut pulse = interval_at(Instant::now() + PULSE, PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if !shutdown.is_cancelled() {
                self.start(shutdown).await?;
            } else if self.in_flight.is_empty() {
                return self.session.close().await;
            }
            let wake_at = self.wake_at();
            tokio::select! {
                () = shutdown.cancelled(), if !shutdown.is_cancelled() => {}
                Some(finished) = self.in_flight.join_next() => match finished.map_err(JoinError::try_into_panic) {
                    Ok(finished) => self.finish(finished).await?,
                    // A defect, which is for the supervisor to see.
                    Err(Ok(panic)) => resume_unwind(panic),
                    // The runtime ends.
                    Err(Err(_cancelled)) => return self.session.close().await,
                },
                () = self.relay.outbox.nudged() => self.hear(Notice::Stored),
                notice = self.session.notified() => self.hear(notice?),
                () = sleep_until(wake_at), if !shutdown.is_cancelled() => self.has_news = true,
                _ = pulse.tick() => self.session.show_life().await?,
            }
        }
    }

    fn wake_at(&self) -> Instant {
        let pause = self.lanes.next_end().map(|end| end.max(self.read_at));
        let read = self.has_news.then_some(self.read_at);
        [pause, read].into_iter().flatten().fold(self.poll_at, Instant::min)
    }

    /// Reads what may be read, and begins to publish it.
    async fn start(&mut self, shutdown: &CancellationToken) -> Result<(), SessionError> {
        while let Some(notice) = self.session.buffered() {
            self.hear(notice);
        }
        if self.poll_at <= Instant::now() {
            self.poll().await?;
        }
        let now = Instant::now();
        let is_too_soon = !self.in_flight.is_empty() && now < self.read_at;
        if !self.has_news || is_too_soon {
            return Ok(());
        }
        self.has_news = false;
        self.read_at = now + READ_GAP;
        let held = self.relay.outbox.partitions().held();
        if held.is_empty() {
            return Ok(());
        }
        let windows = self.session.read(&held, self.relay.settings.batch, &self.lanes, now).await?;
        self.lanes.read(now, |to, partition| windows.iter().any(|window| window.may_have(to, partition)));
        for window in windows {
            self.lanes.started(&window.destination, window.is_full);
            self.in_flight.spawn(self.relay.clone().publish(window, shutdown.clone()));
        }
        Ok(())
    }

    /// What is done once in an idle poll, busy or not.
    async fn poll(&mut self) -> Result<(), SessionError> {
        let partitions = self.relay.outbox.partitions();
        if self.session.take_free_partitions().await? {
            let held = partitions.held();
            tracing::info!(partitions = ?held, "this process publishes the outbox");
            self.relay.metrics.held(held.len());
        }
        let oldest = self.session.oldest(&partitions.held()).await?;
        self.relay.metrics.oldest(oldest);
        self.poll_at = Instant::now() + self.relay.settings.idle_poll;
        self.has_news = true;
        Ok(())
    }

    /// Deletes what a stream has, and lets the lanes back off in which something failed. Progress, even if a failure ended
    /// it, starts the backoff again: a stream that is full and being emptied takes a few messages every time.
    async fn finish(&mut self, finished: Finished) -> Result<(), SessionError> {
        let Finished { destination, outcome } = finished;
        self.session.delete(&outcome.stored).await?;
        for place in &outcome.stored {
            self.lanes.succeeded(&destination, place.partition);
        }
        for (partition, error) in &outcome.stopped {
            tracing::warn!(%destination, partition, %error, "a message of the outbox was not stored; its lane backs off");
            self.lanes.failed(&destination, *partition, Instant::now());
        }
        self.has_news |= self.lanes.finished(&destination);
        Ok(())
    }

    fn hear(&mut self, notice: Notice) {
        match notice {
            Notice::Stored => {
                self.lanes.written();
                self.has_news = true;
            }
            Notice::Released => self.poll_at = Instant::now(),
        }
    }
}
