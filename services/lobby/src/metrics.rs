//! What the lobby counts.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram},
};
use stampede_telemetry::meter;

use crate::store::Called;

/// The lobby's instruments.
#[derive(Debug, Clone)]
pub struct Metrics {
    wait: Histogram<f64>,
    places: Counter<u64>,
    open: Gauge<i64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let meter = meter();
        Self {
            wait: meter
                .f64_histogram("stampede.lobby.wait")
                .with_unit("s")
                .with_description("from joining to being admitted")
                .with_boundaries(vec![0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0])
                .build(),
            places: meter
                .u64_counter("stampede.lobby.places")
                .with_description("places by what became of them")
                .build(),
            open: meter.i64_gauge("stampede.lobby.open").with_description("open places by state").build(),
        }
    }
}

impl Metrics {
    /// Somebody joined.
    pub fn joined(&self) {
        self.places.add(1, &[KeyValue::new("event", "joined")]);
    }

    /// What one look at a line did.
    pub fn called(&self, called: &Called) {
        for wait in &called.admitted {
            self.wait.record(wait.as_secs_f64(), &[]);
        }
        let counts = [
            ("admitted", called.admitted.len() as u64),
            ("sold_out", called.sold_out),
            ("expired", called.ended),
        ];
        for (event, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            self.places.add(count, &[KeyValue::new("event", event)]);
        }
    }

    /// How many places are open.
    pub fn open(&self, places: &[(String, i64)]) {
        for state in ["early", "waiting", "admitted"] {
            let count = places.iter().find(|(name, _)| name == state).map_or(0, |(_, count)| *count);
            self.open.record(count, &[KeyValue::new("state", state)]);
        }
    }
}
