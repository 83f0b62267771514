//! The services that speak HTTP: catalog, lobby, orders. Requests and answers pass through byte for byte.
//!
//! Around every call stand the layers of its destination; inside of them one attempt (`way`) picks a replica
//! (`replicas`) and exchanges request and answer with it (`exchange`).

mod exchange;
mod replicas;
mod way;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use opentelemetry::KeyValue;
use stampede_balance::{InvalidSettings, Snapshot};
use stampede_bus::Members;
use stampede_contracts::function::{Keyed, Safe};
use stampede_contracts::{Code, Problem, Repeatable, Route};
use stampede_resilience::{Destination, Destinations, Error};
use tower::{Layer, ServiceExt};

use self::exchange::{Client, Failure};
use self::replicas::Replicas;
use self::way::{Call, Way, meaning};
use crate::metrics::Metrics;

/// A request on its way in. Its header holds only what may pass.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// As the client sent it.
    pub method: Method,
    /// As the client sent it.
    pub target: PathAndQuery,
    /// What may pass, and what the door adds.
    pub headers: HeaderMap,
    /// As the client sent it.
    pub body: Bytes,
}

/// How an answer is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// When it is complete.
    Whole,
    /// As it comes, if it is a success; it may never end.
    Stream,
}

/// A service cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum InvalidUpstream {
    /// The blueprint says nothing of it.
    #[error("blueprint.toml has no [calls.{0}]")]
    NoDestination(&'static str),
    /// How its replicas are to be ejected.
    #[error("replicas: {0}")]
    Replicas(#[from] InvalidSettings),
}

/// A service: what is known of it as a whole, and of its replicas.
#[derive(Debug)]
struct Callee {
    destination: Destination<()>,
    replicas: Replicas,
}

/// Passes requests on to the replicas that live. A handle: clones share it.
#[derive(Clone)]
pub struct Upstream {
    client: Client,
    callees: Arc<Callees>,
    metrics: Metrics,
}

type Callees = HashMap<&'static str, Arc<Callee>>;

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("callees", &self.callees).finish_non_exhaustive()
    }
}

impl Upstream {
    /// For these services, found by their heartbeats and called as their policies say.
    ///
    /// # Errors
    /// [`InvalidUpstream`] when one has no policy.
    pub fn try_new(
        services: &[&'static str],
        destinations: &Destinations,
        members: &Members,
        metrics: Metrics,
    ) -> Result<Self, InvalidUpstream> {
        let callee = |&service| {
            let destination = destinations.get(service).ok_or(InvalidUpstream::NoDestination(service))?;
            let replicas = Replicas::new(service, members.clone())?;
            Ok((service, Arc::new(Callee { destination, replicas })))
        };
        let callees = services.iter().map(callee).collect::<Result<_, InvalidUpstream>>()?;
        let upstream = Self { client: exchange::client(), callees: Arc::new(callees), metrics };
        show(&upstream.callees);
        Ok(upstream)
    }

    /// Whether anybody of `service` takes work.
    pub fn has_member(&self, service: &str) -> bool {
        self.callees.get(service).is_some_and(|callee| callee.replicas.is_there())
    }

    /// Passes a request on, and again, to another replica where there is one, when one cannot be reached, breaks off, or
    /// has too much to do.
    ///
    /// # Errors
    /// `unavailable` when no replica took the request, `deadline_exceeded` when one took it and nobody knows more.
    pub async fn ask<R>(&self, request: Outgoing) -> Result<Response, Problem>
    where
        R: Route,
        R::Guarantee: Repeatable,
    {
        self.repeat(self.call::<R>(request, Delivery::Whole)?).await
    }

    /// Like [`ask`](Self::ask); another replica is asked as well when one takes longer than nearly all others did.
    ///
    /// # Errors
    /// See [`ask`](Self::ask).
    pub async fn read<R: Route<Guarantee = Safe>>(&self, request: Outgoing) -> Result<Response, Problem> {
        self.hedge(self.call::<R>(request, Delivery::Whole)?).await
    }

    /// Like [`ask`](Self::ask), for a stream of events: its answer begins when there is a head.
    ///
    /// # Errors
    /// See [`ask`](Self::ask).
    pub async fn follow<R: Route<Guarantee = Safe>>(&self, request: Outgoing) -> Result<Response, Problem> {
        self.repeat(self.call::<R>(request, Delivery::Stream)?).await
    }

    /// From here on nothing depends on the function, so that the layers are compiled once.
    fn call<R: Route>(&self, request: Outgoing, delivery: Delivery) -> Result<Call, Problem> {
        let Some(callee) = self.callees.get(R::SERVICE) else {
            tracing::error!(service = R::SERVICE, "the gateway was not told of this service");
            return Err(Problem::new(Code::Internal));
        };
        if !callee.replicas.is_there() {
            // Not for the layers: retries and hedges would find no replica either, and use up the budget that the first calls
            // of one that comes back need.
            self.metrics.attempt(R::SERVICE).outcome(Failure::Nobody.as_str());
            return Err(away(R::SERVICE));
        }
        Ok(Call::new(R::SERVICE, Arc::clone(callee), R::DEADLINE, request, delivery))
    }

    async fn repeat(&self, call: Call) -> Result<Response, Problem> {
        let destination = call.callee.destination.promising::<Keyed>();
        let answer = if destination.is_on() {
            destination.repeating(meaning).layer(self.way()).oneshot(call.clone()).await
        } else {
            self.attempt(call.clone()).await.map_err(Error::Inner)
        };
        answer.map_err(|error| unanswered(&call, error))
    }

    async fn hedge(&self, call: Call) -> Result<Response, Problem> {
        let destination = call.callee.destination.promising::<Safe>();
        let answer = if destination.is_on() {
            destination.hedging(meaning).layer(self.way()).oneshot(call.clone()).await
        } else {
            self.attempt(call.clone()).await.map_err(Error::Inner)
        };
        answer.map_err(|error| unanswered(&call, error))
    }

    fn way(&self) -> Way {
        Way { upstream: self.clone() }
    }
}

/// Shows every replica, as long as there is somebody who calls them.
fn show(callees: &Arc<Callees>) {
    let gauge = |name, description, read: fn(&Snapshot<Arc<str>>) -> u64| {
        let callees = Arc::downgrade(callees);
        stampede_telemetry::meter()
            .u64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |observer| {
                let Some(callees) = callees.upgrade() else { return };
                for (service, callee) in &*callees {
                    for replica in callee.replicas.snapshot() {
                        let labels = [
                            KeyValue::new("service", *service),
                            KeyValue::new("replica", replica.replica.to_string()),
                        ];
                        observer.observe(read(&replica), &labels);
                    }
                }
            })
            .build();
    };
    gauge("stampede.gateway.replica.in_flight", "Requests under way to a replica.", |replica| {
        replica.in_flight.into()
    });
    gauge(
        "stampede.gateway.replica.ejected",
        "1 while a replica is left alone because it fails.",
        |replica| replica.returns_in.is_some().into(),
    );
}

/// Why there is no answer, for whoever asked.
fn unanswered(call: &Call, error: Error<Failure>) -> Problem {
    let (service, is_safe) = (call.service, call.request.method.is_safe());
    tracing::warn!(service, error = &error as &dyn std::error::Error, "a service gave no answer");
    match error {
        // What is unknown is told: the request may have had its effect.
        Error::TimedOut | Error::Inner(Failure::TimedOut | Failure::OutOfTime | Failure::Broken(_))
            if !is_safe =>
        {
            Problem::new(Code::DeadlineExceeded).detail(
                "The answer was lost on its way; the same request, with the same key if it has one, brings it back.",
            )
        }
        Error::Inner(Failure::Unsendable(_)) => Problem::new(Code::Internal),
        Error::Inner(Failure::OutOfTime) => Problem::new(Code::DeadlineExceeded),
        Error::Open(after) => away(service).retry_after(seconds(after)),
        Error::TimedOut | Error::Crowded(_) | Error::Inner(_) => away(service),
    }
}

fn away(service: &str) -> Problem {
    Problem::new(Code::Unavailable).detail(format!("{service} is away"))
}

/// Rounded up: who comes early is refused again.
fn seconds(after: Duration) -> u32 {
    u32::try_from(after.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}
