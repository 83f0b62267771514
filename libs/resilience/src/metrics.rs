//! What a destination shows. Everything is read when somebody looks; a call only adds to counters.

use std::sync::{Arc, Weak};

use opentelemetry::KeyValue;
use stampede_circuit_breaker::State;

use crate::Totals;
use crate::destination::Shared;

/// Shows a destination for as long as it lives.
pub(crate) fn show(shared: &Arc<Shared>) {
    let meter = stampede_telemetry::meter();
    let name = KeyValue::new("destination", shared.name.to_string());
    let outcomes = ["answered", "failed", "timed_out", "open", "crowded"]
        .map(|outcome| [name.clone(), KeyValue::new("outcome", outcome)]);
    let destination = Arc::downgrade(shared);
    let calls = meter.u64_observable_counter("stampede.destination.calls");
    calls
        .with_description("Calls of a destination by how they ended.")
        .with_callback(move |observer| {
            let Some(totals) = destination.upgrade().map(|shared| shared.health().totals) else { return };
            let Totals { answered, failed, timed_out, open, crowded } = totals;
            for (count, labels) in [answered, failed, timed_out, open, crowded].into_iter().zip(&outcomes) {
                observer.observe(count, labels);
            }
        })
        .build();
    gauge(shared, "stampede.destination.breaker.state", "0 closed, 1 half-open, 2 open.", |shared| {
        match shared.health().breaker.state {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        }
    });
    gauge(shared, "stampede.destination.bulkhead.taken", "Calls under way.", |shared| {
        shared.health().bulkhead.taken.into()
    });
    gauge(shared, "stampede.destination.bulkhead.places", "Calls that may be under way.", |shared| {
        shared.health().bulkhead.places.into()
    });
    gauge(shared, "stampede.destination.bulkhead.waiting", "Calls that wait for a place.", |shared| {
        u64::try_from(shared.health().bulkhead.waiting).unwrap_or(u64::MAX)
    });
    gauge(shared, "stampede.destination.hedge.attempts", "Attempts made beside the first.", |shared| {
        shared.health().hedge.hedged
    });
    gauge(shared, "stampede.destination.hedge.won", "Answers that came from those.", |shared| {
        shared.health().hedge.won
    });
    gauge(shared, "stampede.destination.retry.tokens", "Repetitions that are saved up.", |shared| {
        shared.health().budget
    });
}

fn gauge(
    shared: &Arc<Shared>,
    name: &'static str,
    description: &'static str,
    read: impl Fn(&Shared) -> u64 + Send + Sync + 'static,
) {
    let labels = [KeyValue::new("destination", shared.name.to_string())];
    let destination: Weak<Shared> = Arc::downgrade(shared);
    stampede_telemetry::meter()
        .u64_observable_gauge(name)
        .with_description(description)
        .with_callback(move |observer| {
            if let Some(shared) = destination.upgrade() {
                observer.observe(read(&shared), &labels);
            }
        })
        .build();
}
