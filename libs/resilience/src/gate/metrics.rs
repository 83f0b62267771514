//! What a gate shows, read when somebody looks: a request that passes pays nothing for it.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::AsyncInstrument;
use stampede_contracts::Class;
use stampede_load_shed::{Reason, Snapshot};

use super::{Shared, priority};

/// Numbers of one instrument, and what tells them apart.
type Numbers = Vec<(u64, Vec<KeyValue>)>;

/// Shows a gate for as long as it lives.
pub(super) fn show(gate: &Arc<Shared>) {
    gauge(gate, "stampede.shed.limit", "Requests that may be under way.", |now| {
        vec![(now.limit.into(), vec![])]
    });
    gauge(gate, "stampede.shed.in_flight", "Requests under way.", |now| vec![(now.in_flight.into(), vec![])]);
    gauge(gate, "stampede.shed.queued", "Requests that wait for room.", |now| {
        let queued = |class| now.queued[usize::from(priority(class).level())];
        Class::ALL.map(|class| (u64::try_from(queued(class)).unwrap_or(u64::MAX), vec![label(class)])).into()
    });
    counter(gate, "stampede.shed.admitted", "Requests that were let in.", |now| vec![(now.admitted, vec![])]);
    counter(gate, "stampede.shed.refused", "Requests that were not let in.", |now| {
        let of = |class| {
            Reason::ALL.map(|reason| {
                let labels = vec![label(class), KeyValue::new("reason", reason.as_str())];
                (now.shed(priority(class), reason), labels)
            })
        };
        Class::ALL.into_iter().flat_map(of).collect()
    });
}

fn label(class: Class) -> KeyValue {
    KeyValue::new("class", class.as_str())
}

fn gauge(gate: &Arc<Shared>, name: &'static str, description: &'static str, read: fn(&Snapshot) -> Numbers) {
    stampede_telemetry::meter()
        .u64_observable_gauge(name)
        .with_description(description)
        .with_unit("{request}")
        .with_callback(observe(gate, read))
        .build();
}

fn counter(
    gate: &Arc<Shared>,
    name: &'static str,
    description: &'static str,
    read: fn(&Snapshot) -> Numbers,
) {
    stampede_telemetry::meter()
        .u64_observable_counter(name)
        .with_description(description)
        .with_unit("{request}")
        .with_callback(observe(gate, read))
        .build();
}

fn observe(
    gate: &Arc<Shared>,
    read: fn(&Snapshot) -> Numbers,
) -> impl Fn(&dyn AsyncInstrument<u64>) + Send + Sync + 'static {
    let gate = Arc::downgrade(gate);
    move |observer| {
        let Some(gate) = gate.upgrade() else { return };
        for (number, mut labels) in read(&gate.shed.snapshot()) {
            labels.push(KeyValue::new("gate", gate.name.to_string()));
            observer.observe(number, &labels);
        }
    }
}
