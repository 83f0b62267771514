//! The instruments.

use std::time::Duration;

use opentelemetry::metrics::{Counter, Gauge, Histogram};

use crate::batch::Outcome;

/// Made with the relay, after telemetry began: earlier instruments would record nothing.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    age: Histogram<f64>,
    stopped: Counter<u64>,
    oldest: Gauge<f64>,
    held: Gauge<u64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = opentelemetry::global::meter("stampede");
        Self {
            age: meter
                .f64_histogram("stampede.outbox.age")
                .with_unit("s")
                .with_description("From writing a message to its acknowledgement by a stream.")
                .build(),
            stopped: meter
                .u64_counter("stampede.outbox.stopped")
                .with_description("Times a lane had to back off because a message was not stored.")
                .build(),
            oldest: meter
                .f64_gauge("stampede.outbox.oldest")
                .with_unit("s")
                .with_description(
                    "Age of the oldest message in the partitions held here, when last looked at.",
                )
                .build(),
            held: meter
                .u64_gauge("stampede.outbox.partitions")
                .with_description("Partitions this process publishes.")
                .build(),
        }
    }

    pub(crate) fn oldest(&self, age: Duration) {
        self.oldest.record(age.as_secs_f64(), &[]);
    }

    pub(crate) fn held(&self, partitions: usize) {
        self.held.record(partitions as u64, &[]);
    }

    /// A batch that took so long from reading to its last acknowledgement.
    pub(crate) fn published<E>(&self, outcome: &Outcome<E>, took: Duration) {
        for place in &outcome.stored {
            self.age.record((place.age + took).as_secs_f64(), &[]);
        }
        self.stopped.add(outcome.stopped.len() as u64, &[]);
    }
}
