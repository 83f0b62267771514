//! What this service counts. Labels are words of this program, never of a request.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;

use crate::domain::block::{Counts, Seat};

/// The instruments. Made once a process, after telemetry began.
#[derive(Debug, Clone)]
pub struct Metrics {
    holds: Counter<u64>,
    changes: Counter<u64>,
    attempts: Counter<u64>,
    expired: Counter<u64>,
    published: Counter<u64>,
    totals: Arc<Mutex<Option<Counts>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let meter = stampede_telemetry::meter();
        let counter = |name, description| meter.u64_counter(name).with_description(description).build();
        let totals: Arc<Mutex<Option<Counts>>> = Arc::default();
        let observed = Arc::clone(&totals);
        let _seats = meter
            .u64_observable_gauge("stampede.inventory.seats")
            .with_description(
                "Seats of shows that are not over, by state. Only the replica that sweeps knows them.",
            )
            .with_callback(move |observer| {
                let Some(counts) = *observed.lock().unwrap_or_else(PoisonError::into_inner) else { return };
                let states = [
                    (Seat::Free, counts.free),
                    (Seat::Held, counts.held),
                    (Seat::Attached, counts.attached),
                    (Seat::Sold, counts.sold),
                    (Seat::Blocked, counts.blocked),
                ];
                for (state, count) in states {
                    observer.observe(u64::from(count), &[KeyValue::new("state", state.as_str())]);
                }
            })
            .build();
        Self {
            holds: counter("stampede.inventory.holds", "Requests for a hold, by what came of them."),
            changes: counter("stampede.inventory.changes", "Wishes to change a hold, by what came of them."),
            attempts: counter(
                "stampede.inventory.attempts",
                "Tries to hold seats in one block, by what came of them.",
            ),
            expired: counter("stampede.inventory.expired", "Holds that ended because their time was over."),
            published: counter("stampede.inventory.published", "Blocks and layouts that were published."),
            totals,
        }
    }
}

impl Metrics {
    /// A request for a hold was answered.
    pub fn hold(&self, outcome: &'static str) {
        self.holds.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// A block was asked for seats.
    pub fn attempt(&self, outcome: &'static str) {
        self.attempts.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// A wish was answered.
    pub fn change(&self, wish: &'static str, outcome: &'static str) {
        self.changes.add(1, &[KeyValue::new("wish", wish), KeyValue::new("outcome", outcome)]);
    }

    /// Holds ended by themselves.
    pub fn expired(&self, count: usize) {
        self.expired.add(count as u64, &[]);
    }

    /// Something was stored in a stream.
    pub fn published(&self, what: &'static str, count: usize) {
        self.published.add(count as u64, &[KeyValue::new("what", what)]);
    }

    /// The seats were counted; `None` when this replica does not count any more.
    pub fn totals(&self, counts: Option<Counts>) {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}
