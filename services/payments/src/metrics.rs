//! What is counted. Labels are words of ours, so their number is bounded.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge};
use stampede_contracts::command::PaymentAction;
use stampede_contracts::event::PaymentOutcome;
use stampede_telemetry::meter;

use crate::clients::Unclear;
use crate::domain::Operation;

const ACTIONS: [PaymentAction; 4] =
    [PaymentAction::Authorise, PaymentAction::Capture, PaymentAction::Void, PaymentAction::Refund];

/// The instruments. Clones record into the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    commands: Counter<u64>,
    operations: Counter<u64>,
    unclear: Counter<u64>,
    money: Counter<u64>,
    webhooks: Counter<u64>,
    open: Gauge<u64>,
}

impl Metrics {
    /// Makes them, after telemetry began.
    #[expect(clippy::new_without_default, reason = "instruments made at the wrong time record nothing")]
    pub fn new() -> Self {
        let meter = meter();
        Self {
            commands: meter
                .u64_counter("stampede.payments.commands")
                .with_description(
                    "Commands taken, by whether they were new or came again after their outcome.",
                )
                .build(),
            operations: meter
                .u64_counter("stampede.payments.operations")
                .with_description("Operations that have their outcome.")
                .build(),
            unclear: meter
                .u64_counter("stampede.payments.unclear")
                .with_description("Attempts after which the outcome is unknown.")
                .build(),
            money: meter
                .u64_counter("stampede.payments.money")
                .with_description("Money captured and refunded, in minor units.")
                .build(),
            webhooks: meter
                .u64_counter("stampede.payments.webhooks")
                .with_description("Webhooks of the provider, by what they did.")
                .build(),
            open: meter
                .u64_gauge("stampede.payments.open")
                .with_description("Operations without outcome, of all replicas.")
                .build(),
        }
    }

    pub(crate) fn taken(&self, new: usize, again: usize) {
        for (kind, count) in [("new", new), ("again", again)] {
            self.commands.add(count as u64, &[KeyValue::new("kind", kind)]);
        }
    }

    pub(crate) fn settled(&self, operation: &Operation, outcome: &PaymentOutcome) {
        let word = match outcome {
            PaymentOutcome::Succeeded { .. } => "succeeded",
            PaymentOutcome::Declined { .. } => "declined",
            PaymentOutcome::Refused { .. } => "refused",
        };
        let action = KeyValue::new("action", operation.action.as_str());
        self.operations.add(1, &[action, KeyValue::new("outcome", word)]);
        let moved = match (operation.action, outcome) {
            (PaymentAction::Capture, PaymentOutcome::Succeeded { .. }) => "captured",
            (PaymentAction::Refund, PaymentOutcome::Succeeded { .. }) => "refunded",
            _ => return,
        };
        let currency = KeyValue::new("currency", operation.amount.currency().to_string());
        self.money.add(operation.amount.amount().unsigned_abs(), &[KeyValue::new("kind", moved), currency]);
    }

    pub(crate) fn unclear(&self, action: PaymentAction, unclear: &Unclear) {
        let labels = [KeyValue::new("action", action.as_str()), KeyValue::new("reason", unclear.as_str())];
        self.unclear.add(1, &labels);
    }

    pub(crate) fn webhook(&self, result: &'static str) {
        self.webhooks.add(1, &[KeyValue::new("result", result)]);
    }

    /// Says how many operations are open, by action.
    pub(crate) fn open(&self, counts: &[(String, i64)]) {
        for action in ACTIONS {
            let count =
                counts.iter().find(|(word, _)| word == action.as_str()).map_or(0, |(_, count)| *count);
            self.open.record(count.unsigned_abs(), &[KeyValue::new("action", action.as_str())]);
        }
    }
}
