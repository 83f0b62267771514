//! The instruments. Labels come from programs, never from messages, so their number is bounded.

use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram};

/// Made once per connection, after telemetry began: earlier instruments would record nothing.
#[derive(Clone)]
pub(crate) struct Metrics {
    operation: Histogram<f64>,
    process: Histogram<f64>,
    pub(crate) refused: Counter<u64>,
    pub(crate) dead_letters: Counter<u64>,
    pub(crate) rebinds: Counter<u64>,
    pub(crate) violations: Counter<u64>,
    pub(crate) dropped: Counter<u64>,
    pub(crate) disconnects: Counter<u64>,
}

/// Why a responder did not run a request.
#[derive(Clone, Copy)]
pub(crate) enum Refusal {
    /// There was too much to do: the queue was full, or did not get empty; the caller was told.
    Busy,
    /// Nobody waited for the answer any more; nobody was told.
    Expired,
    /// Nobody offers that function here.
    UnknownFunction,
}

impl Refusal {
    fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Expired => "expired",
            Self::UnknownFunction => "unknown_function",
        }
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = stampede_telemetry::meter();
        let count = |name, text| meter.u64_counter(name).with_description(text).build();
        let seconds = |name, text| meter.f64_histogram(name).with_unit("s").with_description(text).build();
        Self {
            operation: seconds("messaging.client.operation.duration", "Requests and acknowledged publishes."),
            process: seconds(
                "messaging.process.duration",
                "Handling of one request or one batch of messages.",
            ),
            refused: count("stampede.bus.refused", "Requests that were not handled."),
            dead_letters: count("stampede.bus.dead_letters", "Messages that could not be handled."),
            rebinds: count("stampede.bus.rebinds", "Times a consumer had to be found or made again."),
            violations: count("stampede.bus.permission_violations", "Things NATS did not permit."),
            dropped: count("stampede.bus.dropped", "Messages lost because a subscription was full."),
            disconnects: count("stampede.bus.disconnects", "Lost connections."),
        }
    }

    /// A request, or a publish with its acknowledgement, that this process began at `started`.
    pub(crate) fn operation(
        &self,
        name: &'static str,
        what: &str,
        error: Option<&'static str>,
        started: Instant,
    ) {
        self.operation.record(started.elapsed().as_secs_f64(), &labels(name, what, error));
    }

    /// Something that arrived here and was handled.
    pub(crate) fn process(&self, what: &str, error: Option<&'static str>, took: Duration) {
        self.process.record(took.as_secs_f64(), &labels("process", what, error));
    }

    pub(crate) fn refuse(&self, function: &'static str, why: Refusal) {
        self.refused.add(1, &[KeyValue::new("function", function), KeyValue::new("reason", why.as_str())]);
    }
}

fn labels(name: &'static str, what: &str, error: Option<&'static str>) -> Vec<KeyValue> {
    let mut labels = vec![
        KeyValue::new("messaging.system", "nats"),
        KeyValue::new("messaging.operation.name", name),
        KeyValue::new("messaging.destination.template", what.to_owned()),
    ];
    labels.extend(error.map(|error| KeyValue::new("error.type", error)));
    labels
}
