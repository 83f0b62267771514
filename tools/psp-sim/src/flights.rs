//! Requests that have arrived and are not done yet: the provider knows nothing of them, and they may still land.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stampede_postgres::Failure;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;

use crate::domain::Request;
use crate::store::{Performed, Store};

/// Requests in flight at once. More are turned away, undone.
const FLIGHTS_MAX: usize = 10_000;
/// How long after a look-up that found nothing a late request lands.
const AFTER_LOOK_UP: Duration = Duration::from_millis(300);

/// How a request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journey {
    /// It takes so long, and who waits is answered.
    Takes(Duration),
    /// It lands after somebody looked and saw nothing, and who waits hears nothing.
    Late,
}

/// How a flight ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Landing {
    /// It was decided.
    Landed(Performed),
    /// It was not done in time, or its outcome is unknown.
    Lost,
    /// The ledger cannot be used now. It may have been done.
    Unavailable,
}

/// The requests in flight, by key. A handle: clones share them.
#[derive(Debug, Clone)]
pub struct Flights {
    store: Store,
    tasks: TaskTracker,
    max_in_flight: Duration,
    open: Arc<Mutex<HashMap<String, Flight>>>,
}

/// A request in flight, for those who wait for it.
#[derive(Debug, Clone)]
pub struct Flight {
    journey: Journey,
    looked_up: Arc<Notify>,
    landing: watch::Receiver<Option<Landing>>,
}

/// A request that takes off. Without `Debug`: a card token is nothing for a log.
pub struct Departure {
    /// The merchant's key.
    pub key: String,
    /// What is asked.
    pub request: Request,
    /// How it travels.
    pub journey: Journey,
    /// How long after landing the merchant is told; `None`: never.
    pub tell_after: Option<Duration>,
}

impl Flights {
    /// `tasks` owns the flights: a caller who hangs up does not stop one. None lands after `max_in_flight`.
    pub fn new(store: Store, tasks: TaskTracker, max_in_flight: Duration) -> Self {
        Self { store, tasks, max_in_flight, open: Arc::default() }
    }

    /// The flight under this key, if there is one.
    pub fn find(&self, key: &str) -> Option<Flight> {
        self.lock().get(key).cloned()
    }

    /// Joins the flight under the key, or takes off; nothing when too many are in the air. The second value says
    /// whether it took off now.
    pub fn board(&self, departure: Departure) -> Option<(Flight, bool)> {
        let mut open = self.lock();
        if let Some(flight) = open.get(&departure.key) {
            return Some((flight.clone(), false));
        }
        if open.len() >= FLIGHTS_MAX {
            return None;
        }
        let (sender, landing) = watch::channel(None);
        let flight = Flight { journey: departure.journey, looked_up: Arc::default(), landing };
        open.insert(departure.key.clone(), flight.clone());
        drop(open);
        let (flights, looked_up) = (self.clone(), Arc::clone(&flight.looked_up));
        self.tasks.spawn(async move {
            let key = departure.key.clone();
            let landing = flights.fly(departure, &looked_up).await;
            flights.lock().remove(&key);
            sender.send_replace(Some(landing));
        });
        Some((flight, true))
    }

    async fn fly(&self, departure: Departure, looked_up: &Notify) -> Landing {
        let Departure { key, request, journey, tell_after } = departure;
        let too_late = Instant::now() + self.max_in_flight;
        match journey {
            Journey::Takes(time) if time.is_zero() => {}
            Journey::Takes(time) => sleep(time.min(self.max_in_flight)).await,
            Journey::Late => {
                let latest = Instant::now() + self.max_in_flight.mul_f32(0.8);
                let _nobody_looked = timeout_at(latest, looked_up.notified()).await;
                sleep(AFTER_LOOK_UP.min(self.max_in_flight / 10)).await;
            }
        }
        if Instant::now() >= too_late {
            return Landing::Lost;
        }
        let tell_at = tell_after.map(|after| time::OffsetDateTime::now_utc() + after);
        match timeout_at(too_late, self.store.perform(&key, &request, tell_at)).await {
            Ok(Ok(performed)) => Landing::Landed(performed),
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "an operation was not written");
                if Failure::of(&error).is_outage() { Landing::Unavailable } else { Landing::Lost }
            }
            Err(_elapsed) => Landing::Unavailable,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        // Whole after every statement, so a panic elsewhere does not spoil it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// Whether who waits for it hears nothing.
    pub fn is_silent(&self) -> bool {
        self.journey == Journey::Late
    }

    /// Tells it that somebody looked and saw nothing.
    pub fn looked_up(&self) {
        self.looked_up.notify_one();
    }

    /// Waits until it has ended, at most as long as any flight takes.
    pub async fn landing(mut self) -> Landing {
        match self.landing.wait_for(Option::is_some).await {
            Ok(landing) => landing.clone().unwrap_or(Landing::Lost),
            // Its task ended without a word: it panicked, or the process ends.
            Err(_gone) => Landing::Lost,
        }
    }
}
