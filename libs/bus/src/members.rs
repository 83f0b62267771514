//! Heartbeats: saying that this process lives, and knowing who else does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use stampede_contracts::Heartbeat;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::roster::Roster;
use crate::{BoxError, Bus};

const INTERVAL: Duration = Duration::from_secs(1);
/// At first more often, so that processes that start together know each other soon.
const FIRST_INTERVAL: Duration = Duration::from_millis(200);
const FIRST_BEATS: u32 = 25;
/// Finding out how this process is; checks take their time.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// A heartbeat that cannot be handed over now says nothing any more.
const SEND_WITHIN: Duration = Duration::from_millis(500);
const SUBJECT: &str = "oam.heartbeat.*.*";

impl Bus {
    /// Says once a second (five times in each of the first five) what `heartbeat` returns, until `shutdown`; then once
    /// more, with `ready` false, so that nobody sends new work to a process that is about to end.
    ///
    /// # Errors
    /// None while it runs.
    pub async fn heartbeat<F, Fut>(&self, heartbeat: F, shutdown: CancellationToken) -> Result<(), BoxError>
    where
        F: Fn() -> Fut + Send,
        Fut: Future<Output = Heartbeat> + Send,
    {
        let mut beats = 0_u32;
        while !shutdown.is_cancelled() {
            // Who cannot say how it is does not say that it lives.
            if let Ok(heartbeat) = timeout(ASK_WITHIN, heartbeat()).await {
                self.say(&heartbeat).await;
            }
            shutdown.run_until_cancelled(sleep(pause_after(beats))).await;
            beats = beats.saturating_add(1);
        }
        if let Ok(heartbeat) = timeout(ASK_WITHIN, heartbeat()).await {
            self.say(&Heartbeat { ready: false, ..heartbeat }).await;
        }
        Ok(())
    }

    async fn say(&self, heartbeat: &Heartbeat) {
        if !self.is_connected() {
            // The client library would keep it, and send it when it is long untrue.
            return;
        }
        match serde_json::to_vec(heartbeat) {
            Ok(payload) => {
                let sending = self.client().publish(heartbeat.subject(), payload.into());
                let _ = timeout(SEND_WITHIN, sending).await;
            }
            Err(error) => tracing::error!(%error, "a heartbeat has no form in JSON"),
        }
    }
}

/// How long to wait with the next heartbeat after this many.
fn pause_after(beats: u32) -> Duration {
    if beats < FIRST_BEATS { FIRST_INTERVAL } else { INTERVAL }
}

/// Who lives, kept up to date by [`Members::run`]. A handle: clones share what is known.
///
/// A member lives three seconds after its last heartbeat. While nobody at all is heard, NATS is away: then the last
/// known set stays.
#[derive(Clone, Debug)]
pub struct Members {
    bus: Bus,
    roster: Arc<Mutex<Roster>>,
}

impl Members {
    /// Nobody is known until [`run`](Self::run) listens.
    pub fn new(bus: Bus) -> Self {
        Self { bus, roster: Arc::default() }
    }

    /// Listens until `shutdown`.
    ///
    /// # Errors
    /// When the connection was closed for good.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        let mut subscriber = self.bus.client().subscribe(SUBJECT).await?;
        while let Some(message) = shutdown.run_until_cancelled(subscriber.next()).await {
            let message = message.ok_or("the connection to NATS was closed")?;
            match serde_json::from_slice::<Heartbeat>(&message.payload) {
                // Rights are given by subject: nobody speaks for another service.
                Ok(heartbeat) if heartbeat.subject() == *message.subject => {
                    self.roster().hear(heartbeat, Instant::now());
                }
                Ok(_) => {
                    tracing::warn!(subject = %message.subject, "a heartbeat under another's name");
                }
                Err(error) => {
                    tracing::warn!(subject = %message.subject, %error, "a heartbeat cannot be read");
                }
            }
        }
        Ok(())
    }

    /// The base URLs of all members of `service` that take work, such as `http://10.0.0.7:8080`.
    pub fn takers(&self, service: &str) -> Vec<String> {
        self.roster().takers(service).map(|address| format!("http://{address}")).collect()
    }

    /// A number that changes whenever [`takers`](Self::takers) of some service may have changed: cheap enough to be asked
    /// on every call.
    pub fn version(&self) -> u64 {
        self.roster().version()
    }

    /// What all living members of `service` last said, by name, ready or not.
    pub fn all(&self, service: &str) -> Vec<Heartbeat> {
        self.roster().all(service)
    }

    /// The roster is whole after every statement, so a panic elsewhere does not spoil it.
    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::LIFETIME;

    #[test]
    fn a_process_is_heard_of_soon_and_then_often_enough_to_live() {
        assert_eq!((0..FIRST_BEATS).map(pause_after).sum::<Duration>(), Duration::from_secs(5));
        assert_eq!([FIRST_BEATS, u32::MAX].map(pause_after), [INTERVAL, INTERVAL]);
        assert!(INTERVAL * 2 < LIFETIME, "one that is lost does no harm");
    }
}
