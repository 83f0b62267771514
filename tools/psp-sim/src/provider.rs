//! The provider: does what it is asked, as well as the knobs and the card let it.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use rand::RngExt;
use stampede_postgres::Failure;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use crate::card::Card;
use crate::domain::{Operation, Request};
use crate::flights::{Departure, Flights, Journey, Landing};
use crate::knobs::{Knobs, Panel};
use crate::store::{Performed, Store};

/// How long the slow card takes.
const SLOW: Duration = Duration::from_secs(5);

/// What a merchant gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// What became of it.
    Known(Operation),
    /// Nothing is known under this key: not final before `max_in_flight` has passed.
    Unknown,
    /// The key came with another request before.
    OtherRequest,
    /// An error of the provider. It may have been done.
    Failed,
    /// Too much at once; it was not done.
    Full,
    /// The ledger cannot be used now. It may have been done.
    Unavailable,
    /// The connection breaks. It may have been done.
    Broken,
    /// No answer comes. It may have been done.
    Silence,
}

/// What the provider is told once.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// After this time a key that is unknown stays unknown.
    pub max_in_flight: Duration,
    /// Whether there is a merchant who wants webhooks.
    pub has_webhooks: bool,
}

/// The provider. A handle: clones share ledger, flights and knobs.
#[derive(Debug, Clone)]
pub struct Provider {
    store: Store,
    flights: Flights,
    panel: Panel,
    terms: Terms,
    operations: Counter<u64>,
    misbehaviour: Counter<u64>,
}

impl Provider {
    /// `tasks` owns what is in flight.
    pub fn new(store: Store, panel: Panel, terms: Terms, tasks: TaskTracker) -> Self {
        let meter = stampede_telemetry::meter();
        Self {
            flights: Flights::new(store.clone(), tasks, terms.max_in_flight),
            store,
            panel,
            terms,
            operations: meter
                .u64_counter("stampede.psp.operations")
                .with_description("Operations that were decided.")
                .build(),
            misbehaviour: meter
                .u64_counter("stampede.psp.misbehaviour")
                .with_description("Calls that were not answered as they should have been.")
                .build(),
        }
    }

    /// After this time a key that is unknown stays unknown.
    pub fn max_in_flight(&self) -> Duration {
        self.terms.max_in_flight
    }

    /// The knobs.
    pub fn panel(&self) -> &Panel {
        &self.panel
    }

    /// Whether a request under `key` has arrived and is not done yet.
    pub fn is_in_flight(&self, key: &str) -> bool {
        self.flights.find(key).is_some()
    }

    /// Does what is asked under `key`, once.
    pub async fn perform(&self, key: &str, request: Request) -> Reply {
        let mood = Mood::of(self.panel.read());
        if let Some(reply) = mood.before() {
            return self.misbehave(reply);
        }
        let card = request.card();
        let journey = match self.journey(key, card, mood.latency).await {
            Ok(journey) => journey,
            Err(error) => return failed(&error),
        };
        let tell_after = self.terms.has_webhooks.then(|| mood.knobs.webhook_delay());
        let departure = Departure { key: key.to_owned(), request, journey, tell_after };
        let Some((flight, is_new)) = self.flights.board(departure) else { return Reply::Full };
        let is_silent = flight.is_silent();
        let landing = flight.landing().await;
        if is_silent {
            return self.misbehave(Reply::Broken);
        }
        let (operation, is_first) = match landing {
            Landing::Landed(Performed::First(operation)) => (operation, is_new),
            Landing::Landed(Performed::Again(operation)) => (operation, false),
            Landing::Landed(Performed::OtherRequest) => return Reply::OtherRequest,
            Landing::Lost => return Reply::Failed,
            Landing::Unavailable => return Reply::Unavailable,
        };
        if is_first {
            self.count(&operation);
        }
        match mood.after() {
            Some(reply) => self.misbehave(reply),
            None if is_first && card == Some(Card::LostReply) => self.misbehave(Reply::Broken),
            None => Reply::Known(operation),
        }
    }

    /// What became of `key`, as far as is known.
    pub async fn look_up(&self, key: &str) -> Reply {
        let mood = Mood::of(self.panel.read());
        if let Some(reply) = mood.instead() {
            return self.misbehave(reply);
        }
        sleep(mood.latency).await;
        let flight = self.flights.find(key);
        match self.store.find(key).await {
            Ok(Some(operation)) => Reply::Known(operation),
            Ok(None) => {
                if let Some(flight) = flight {
                    flight.looked_up();
                }
                Reply::Unknown
            }
            Err(error) => failed(&error),
        }
    }

    /// Sees to it that nothing happens under `key` from now on, or says what has happened.
    pub async fn cancel(&self, key: &str) -> Reply {
        let mood = Mood::of(self.panel.read());
        if let Some(reply) = mood.before() {
            return self.misbehave(reply);
        }
        sleep(mood.latency).await;
        match self.store.cancel(key).await {
            Ok(operation) => mood.after().map_or(Reply::Known(operation), |reply| self.misbehave(reply)),
            Err(error) => failed(&error),
        }
    }

    /// The ledger after a place in it, at most `limit` operations; nothing when the provider is down.
    ///
    /// # Errors
    /// Of the database.
    pub async fn ledger(&self, after: i64, limit: i64) -> Result<Option<Vec<Operation>>, sqlx::Error> {
        if self.panel.read().down {
            return Ok(None);
        }
        self.store.ledger(after, limit).await.map(Some)
    }

    /// A request whose key is decided travels as any other: the card has done its mischief.
    async fn journey(
        &self,
        key: &str,
        card: Option<Card>,
        latency: Duration,
    ) -> Result<Journey, sqlx::Error> {
        let odd = match card {
            Some(Card::Late) => Journey::Late,
            Some(Card::Slow) => Journey::Takes(latency + SLOW.min(self.terms.max_in_flight.mul_f32(0.8))),
            _ => return Ok(Journey::Takes(latency)),
        };
        let is_decided = self.store.find(key).await?.is_some();
        Ok(if is_decided { Journey::Takes(latency) } else { odd })
    }

    fn count(&self, operation: &Operation) {
        let labels = [
            KeyValue::new("kind", operation.kind.as_str()),
            KeyValue::new("status", operation.status.as_str()),
        ];
        self.operations.add(1, &labels);
    }

    fn misbehave(&self, reply: Reply) -> Reply {
        let kind = match &reply {
            Reply::Failed => "error",
            Reply::Broken => "broken",
            Reply::Silence => "silence",
            Reply::Known(_) | Reply::Unknown | Reply::OtherRequest | Reply::Full | Reply::Unavailable => {
                return reply;
            }
        };
        self.misbehaviour.add(1, &[KeyValue::new("kind", kind)]);
        reply
    }
}

/// How the provider feels about one call: the dice are thrown once.
struct Mood {
    knobs: Knobs,
    latency: Duration,
    is_failing: bool,
    is_losing: bool,
    coin: bool,
}

impl Mood {
    fn of(knobs: Knobs) -> Self {
        let mut rng = rand::rng();
        Self {
            knobs,
            latency: knobs.latency(&mut rng),
            is_failing: rng.random_bool(knobs.error_rate),
            is_losing: rng.random_bool(knobs.lost_reply_rate),
            coin: rng.random(),
        }
    }

    /// What happens instead of a call that changes something; half of the errors wait until it is done.
    fn before(&self) -> Option<Reply> {
        if self.knobs.down {
            Some(Reply::Broken)
        } else {
            (self.is_failing && self.coin).then_some(Reply::Failed)
        }
    }

    /// What happens instead of the answer to a call that has changed something.
    fn after(&self) -> Option<Reply> {
        if self.is_failing {
            return Some(Reply::Failed);
        }
        self.is_losing.then_some(if self.coin { Reply::Broken } else { Reply::Silence })
    }

    /// What happens instead of a call that changes nothing.
    fn instead(&self) -> Option<Reply> {
        if self.knobs.down { Some(Reply::Broken) } else { self.is_failing.then_some(Reply::Failed) }
    }
}

fn failed(error: &sqlx::Error) -> Reply {
    tracing::error!(error = error as &dyn std::error::Error, "the ledger cannot be used");
    if Failure::of(error).is_outage() { Reply::Unavailable } else { Reply::Failed }
}
