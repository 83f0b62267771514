//! What the gateway counts beside its requests, which telemetry's layer counts.

use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, UpDownCounter};
use stampede_telemetry::meter;

/// The instruments; clones record into the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    sessions: Counter<u64>,
    rate_limited: Counter<u64>,
    upstream: Histogram<f64>,
    last_copies: Counter<u64>,
    streams: UpDownCounter<i64>,
}

/// Whose quota was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// New sessions of an address.
    Sessions,
    /// Requests of a session.
    Session,
    /// Requests without a session of an address.
    Address,
}

impl Limited {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Session => "session",
            Self::Address => "address",
        }
    }
}

impl Metrics {
    /// Makes them, after telemetry began: earlier ones record nothing.
    pub fn new() -> Self {
        let meter = meter();
        Self {
            sessions: meter
                .u64_counter("stampede.gateway.sessions")
                .with_description("Sessions made.")
                .with_unit("{session}")
                .build(),
            rate_limited: meter
                .u64_counter("stampede.gateway.rate_limited")
                .with_description("Requests refused because a quota was used up.")
                .with_unit("{request}")
                .build(),
            last_copies: meter
                .u64_counter("stampede.gateway.last_copies")
                .with_description("Answers that were old ones, because the service did not answer.")
                .build(),
            upstream: meter
                .f64_histogram("stampede.gateway.upstream.duration")
                .with_description("Time from passing a request on to its answer, one attempt.")
                .with_unit("s")
                .with_boundaries(vec![
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
                ])
                .build(),
            streams: meter
                .i64_up_down_counter("stampede.gateway.streams")
                .with_description("Open streams of server-sent events.")
                .with_unit("{stream}")
                .build(),
        }
    }

    /// A session was made.
    pub fn session_made(&self) {
        self.sessions.add(1, &[]);
    }

    /// A request was refused.
    pub fn rate_limited(&self, whose: Limited) {
        self.rate_limited.add(1, &[KeyValue::new("kind", whose.as_str())]);
    }

    /// A request is being passed on.
    pub fn attempt(&self, service: &'static str) -> Attempt {
        Attempt { metrics: self.clone(), service, started: Instant::now(), outcome: "abandoned" }
    }

    /// The last copy of an answer was shown in its place.
    pub fn last_copy(&self, function: &'static str) {
        self.last_copies.add(1, &[KeyValue::new("function", function)]);
    }

    /// A stream was opened; it is over when this is dropped.
    pub fn stream(&self) -> Open {
        Open::new(&self.streams)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// An attempt that is being counted. Written down when it is dropped, so that one whose caller gave up is counted too,
/// as `abandoned`.
#[derive(Debug)]
pub struct Attempt {
    metrics: Metrics,
    service: &'static str,
    started: Instant,
    outcome: &'static str,
}

impl Attempt {
    /// What became of it.
    pub fn outcome(&mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let labels = [KeyValue::new("service", self.service), KeyValue::new("outcome", self.outcome)];
        self.metrics.upstream.record(self.started.elapsed().as_secs_f64(), &labels);
    }
}

/// Something open that is being counted.
#[derive(Debug)]
pub struct Open(UpDownCounter<i64>);

impl Open {
    fn new(counter: &UpDownCounter<i64>) -> Self {
        counter.add(1, &[]);
        Self(counter.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.add(-1, &[]);
    }
}
