//! Following a stream with a consumer of this process's own: from its first message on, in order, without gaps, and
//! from the beginning again when the stream is another one.

use std::time::Duration;

use async_nats::jetstream::Message;
use stampede_retry::Backoff;
use tokio_util::sync::CancellationToken;

use crate::jetstream::{ConsumerInfo, Start, StreamInfo};
use crate::pull::{Lost, Pull};
use crate::{BoxError, Bus, stopping};

const BATCH: usize = 256;
/// How long the server holds an empty pull open. Also bounds how long a lost pull goes unnoticed.
const WAIT: Duration = Duration::from_secs(1);
const OPEN_BASE: Duration = Duration::from_millis(100);
const OPEN_MAX: Duration = Duration::from_secs(2);
/// For one message. Less than the time after which the server forgets a reader that does not pull.
const HANDLE_WITHIN: Duration = Duration::from_secs(20);
const RETRY_BASE: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

pub(crate) struct Follow {
    pub(crate) bus: Bus,
    pub(crate) stream: String,
    pub(crate) filter: String,
    /// From where on, when the stream is new to this process.
    pub(crate) start: Start,
}

/// What is done with the messages.
pub(crate) trait Follower: Send {
    /// On `Err` the same message comes again after a pause; the next one waits.
    fn message(&mut self, message: &Message) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Where in the stream it is.
    fn reached(&mut self, place: Reached);
}

/// Where in a stream a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// It reads from the first message on: the stream is new to this process, was made anew, or lost its end. A copy of an
    /// earlier one is as old as that until the stream has it again.
    Beginning,
    /// All messages that were there at the beginning have been handled.
    Present,
    /// The server says just now that there is nothing that was not handled. About once a second in a stream that is quiet;
    /// never while stream, server or connection are missing.
    End,
}

/// How far a process has come, and in which stream.
struct Position {
    created: String,
    sequence: u64,
    caught_up: bool,
}

/// A consumer of our own, and what it still owes.
struct Reader {
    pull: Pull,
    /// Messages that were there when it was made.
    present: u64,
    /// Number of the last message it delivered; they come without gaps, or some were lost on the way.
    delivered: u64,
}

impl Follow {
    /// Follows until `shutdown`. What is being handled then has [`STOP_WITHIN`](crate::STOP_WITHIN).
    pub(crate) async fn run(
        self,
        shutdown: &CancellationToken,
        follower: impl Follower,
    ) -> Result<(), BoxError> {
        stopping(shutdown, self.follow(shutdown, follower)).await.unwrap_or(Ok(()))
    }

    async fn follow(
        &self,
        shutdown: &CancellationToken,
        mut follower: impl Follower,
    ) -> Result<(), BoxError> {
        let open_again = Backoff::try_new(OPEN_BASE, OPEN_MAX)?;
        let retry = Backoff::try_new(RETRY_BASE, RETRY_MAX)?;
        let mut position = None;
        let mut attempt = 0;
        while !shutdown.is_cancelled() {
            let lost = match self.open(&mut position, &mut follower).await {
                Ok((reader, position)) => {
                    attempt = 0;
                    match follow(reader, position, &retry, shutdown, &mut follower).await {
                        Ok(()) => break,
                        Err(lost) => lost,
                    }
                }
                Err(lost) => lost,
            };
            self.bus
                .metrics()
                .rebinds
                .add(1, &[opentelemetry::KeyValue::new("consumer", self.stream.clone())]);
            if attempt == 0 {
                tracing::warn!(stream = self.stream, reason = %lost, "waiting for the stream");
            }
            let pause = open_again.delay(attempt, &mut rand::rng());
            attempt = attempt.saturating_add(1);
            let _ = shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        Ok(())
    }

    /// Makes a consumer that goes on where the last one ended, if the stream is still the same.
    async fn open<'p>(
        &self,
        position: &'p mut Option<Position>,
        follower: &mut impl Follower,
    ) -> Result<(Reader, &'p mut Position), Lost> {
        let info = self.bus.stream_info(&self.stream).await?.ok_or_else(missing)?;
        let known = position.take().filter(|position| position.is_in(&info));
        if known.is_none() {
            tracing::info!(stream = self.stream, created = info.created, "reading from the beginning");
            follower.reached(Reached::Beginning);
        }
        let position = position.insert(known.unwrap_or(Position {
            created: info.created,
            sequence: 0,
            caught_up: false,
        }));
        let start = if position.sequence == 0 { self.start } else { Start::Sequence(position.sequence + 1) };
        let consumer: ConsumerInfo =
            self.bus.create_reader(&self.stream, &self.filter, start).await?.ok_or_else(missing)?;
        let pull = Pull::open(&self.bus, &self.stream, &consumer.name).await?;
        Ok((Reader { pull, present: consumer.num_pending, delivered: 0 }, position))
    }
}

impl Position {
    /// Whether it is a place in the stream as it is now: neither made anew since, nor set back by a server that lost
    /// the end of its store.
    fn is_in(&self, info: &StreamInfo) -> bool {
        self.created == info.created && self.sequence <= info.state.last_seq
    }
}

async fn follow(
    mut reader: Reader,
    position: &mut Position,
    retry: &Backoff,
    shutdown: &CancellationToken,
    follower: &mut impl Follower,
) -> Result<(), Lost> {
    let mut exhausted = false;
    loop {
        if !position.caught_up && (exhausted || reader.delivered >= reader.present) {
            position.caught_up = true;
            follower.reached(Reached::Present);
        }
        if exhausted {
            follower.reached(Reached::End);
        }
        // Nothing is acknowledged, so nothing is lost by leaving in the middle.
        let Some(batch) = shutdown.run_until_cancelled(reader.pull.fetch(BATCH, WAIT)).await else {
            return Ok(());
        };
        let batch = batch?;
        for message in &batch.messages {
            let sequence = reader.next(message)?;
            if !hand_over(message, retry, shutdown, follower).await {
                return Ok(());
            }
            position.sequence = sequence;
        }
        exhausted = batch.exhausted;
    }
}

impl Reader {
    /// The message's place in the stream.
    fn next(&mut self, message: &Message) -> Result<u64, Lost> {
        let info = message.info().map_err(|error| Lost(error.to_string()))?;
        if info.consumer_sequence != self.delivered + 1 {
            return Err(Lost(format!("{} follows {}", info.consumer_sequence, self.delivered)));
        }
        self.delivered = info.consumer_sequence;
        Ok(info.stream_sequence)
    }
}

/// Until it succeeds; false when the shutdown came first.
async fn hand_over(
    message: &Message,
    retry: &Backoff,
    shutdown: &CancellationToken,
    follower: &mut impl Follower,
) -> bool {
    let mut attempt = 0;
    loop {
        let error: BoxError = match tokio::time::timeout(HANDLE_WITHIN, follower.message(message)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error,
            Err(_) => format!("not handled within {HANDLE_WITHIN:?}").into(),
        };
        tracing::error!(
            subject = %message.subject,
            error = &*error as &dyn std::error::Error,
            "a message could not be taken and comes again"
        );
        let pause = retry.delay(attempt, &mut rand::rng());
        attempt = attempt.saturating_add(1);
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return false;
        }
    }
}

fn missing() -> Lost {
    Lost("there is no such stream".to_owned())
}
