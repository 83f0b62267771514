//! The instruments of the service.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram};
use stampede_contracts::{Money, api::OrderState};
use stampede_telemetry::meter;

use crate::domain::{Step, StepKind, StepState};
use crate::store::Backlog;

/// Made once per node, after telemetry began: earlier instruments would record nothing.
#[derive(Debug, Clone)]
pub struct Metrics {
    placed: Counter<u64>,
    settled: Counter<u64>,
    tickets: Counter<u64>,
    captured: Counter<u64>,
    refunded: Counter<u64>,
    step: Histogram<f64>,
    repeated: Counter<u64>,
    backlog: Gauge<u64>,
    oldest: Gauge<f64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let meter = meter();
        Self {
            placed: meter
                .u64_counter("stampede.orders.placed")
                .with_description("Orders placed; repeats of a key are not counted.")
                .build(),
            settled: meter
                .u64_counter("stampede.orders.settled")
                .with_description("Orders that came to rest, by state.")
                .build(),
            tickets: meter
                .u64_counter("stampede.orders.tickets_sold")
                .with_description("Tickets issued.")
                .build(),
            captured: meter
                .u64_counter("stampede.orders.captured")
                .with_description("Money taken, in minor units, by currency.")
                .build(),
            refunded: meter
                .u64_counter("stampede.orders.refunded")
                .with_description("Money given back, in minor units, by currency.")
                .build(),
            step: meter
                .f64_histogram("stampede.orders.step.duration")
                .with_unit("s")
                .with_description("From beginning a step to recording its outcome.")
                .build(),
            repeated: meter
                .u64_counter("stampede.orders.step.repeated")
                .with_description("Steps sent again by the sweeper.")
                .build(),
            backlog: meter
                .u64_gauge("stampede.orders.unsettled")
                .with_description("Orders that have not come to rest, by state, over all replicas.")
                .build(),
            oldest: meter
                .f64_gauge("stampede.orders.unsettled.oldest")
                .with_unit("s")
                .with_description("Age of the oldest order that has not come to rest, by state.")
                .build(),
        }
    }
}

impl Metrics {
    pub(crate) fn placed(&self) {
        self.placed.add(1, &[]);
    }

    /// An order came to rest; with the tickets that were issued.
    pub(crate) fn settled(&self, state: OrderState, tickets: usize) {
        self.settled.add(1, &[KeyValue::new("state", state.as_str())]);
        self.tickets.add(tickets as u64, &[]);
    }

    /// A step has its outcome.
    pub(crate) fn finished(&self, step: &Step, total: Option<Money>) {
        let labels =
            [KeyValue::new("step", step.kind.as_str()), KeyValue::new("outcome", step.state.as_str())];
        if let Some(done_at) = step.done_at {
            self.step.record(done_at.since(step.created_at).as_secs_f64(), &labels);
        }
        let Some(total) = total.filter(|_| step.state == StepState::Done) else { return };
        let amount = u64::try_from(total.amount()).unwrap_or_default();
        let currency = [KeyValue::new("currency", total.currency().to_string())];
        match step.kind {
            StepKind::Capture => self.captured.add(amount, &currency),
            StepKind::Refund => self.refunded.add(amount, &currency),
            _ => {}
        }
    }

    pub(crate) fn repeated(&self, kind: StepKind) {
        self.repeated.add(1, &[KeyValue::new("step", kind.as_str())]);
    }

    /// States without orders are shown as zero.
    pub(crate) fn backlog(&self, backlog: &[Backlog]) {
        for state in [OrderState::Pending, OrderState::Failing, OrderState::Cancelling] {
            let found = backlog.iter().find(|row| row.state == state);
            let labels = [KeyValue::new("state", state.as_str())];
            self.backlog.record(found.map_or(0, |row| row.orders), &labels);
            self.oldest.record(found.map_or(Duration::ZERO, |row| row.oldest).as_secs_f64(), &labels);
        }
    }
}
