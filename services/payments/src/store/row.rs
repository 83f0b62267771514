//! Rows as values of the domain.

use sqlx::postgres::types::PgInterval;
use stampede_contracts::command::PaymentAction;
use stampede_contracts::event::PaymentOutcome;
use stampede_contracts::{Money, OrderId, StepId};
use uuid::Uuid;

use crate::domain::Operation;

/// The columns that say what is to be done.
#[derive(Debug)]
pub(super) struct OperationRow {
    pub(super) step_id: Uuid,
    pub(super) order_id: Uuid,
    pub(super) action: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) authorisation: Option<Uuid>,
    pub(super) given_up: bool,
    pub(super) attempts: i32,
    pub(super) traceparent: Option<String>,
}

impl OperationRow {
    pub(super) fn operation(self) -> Result<Operation, sqlx::Error> {
        Ok(Operation {
            step: StepId::from_uuid(self.step_id),
            order: OrderId::from_uuid(self.order_id),
            action: action(&self.action)?,
            amount: money(self.amount, &self.currency)?,
            authorisation: self.authorisation.map(StepId::from_uuid),
            is_given_up: self.given_up,
            attempts: u32::try_from(self.attempts).unwrap_or(0),
            traceparent: self.traceparent,
        })
    }
}

pub(super) fn action(word: &str) -> Result<PaymentAction, sqlx::Error> {
    use PaymentAction::{Authorise, Capture, Refund, Void};
    [Authorise, Capture, Void, Refund]
        .into_iter()
        .find(|action| action.as_str() == word)
        .ok_or_else(|| unreadable(format!("there is no action {word}")))
}

pub(super) fn money(amount: i64, currency: &str) -> Result<Money, sqlx::Error> {
    currency
        .parse()
        .and_then(|currency| Money::try_new(amount, currency))
        .map_err(|error| unreadable(error.to_string()))
}

/// The outcome in its three columns.
pub(super) fn columns(outcome: &PaymentOutcome) -> (&'static str, Option<&str>, Option<&str>) {
    match outcome {
        PaymentOutcome::Succeeded { reference } => ("succeeded", Some(reference), None),
        PaymentOutcome::Declined { reason } => ("declined", None, Some(reason)),
        PaymentOutcome::Refused { reason } => ("refused", None, Some(reason)),
    }
}

/// The outcome of its three columns; the schema sees to it that they belong together.
pub(super) fn outcome(
    word: &str,
    reference: Option<String>,
    reason: Option<String>,
) -> Result<PaymentOutcome, sqlx::Error> {
    match (word, reference, reason) {
        ("succeeded", Some(reference), None) => Ok(PaymentOutcome::Succeeded { reference }),
        ("declined", None, Some(reason)) => Ok(PaymentOutcome::Declined { reason }),
        ("refused", None, Some(reason)) => Ok(PaymentOutcome::Refused { reason }),
        (word, ..) => Err(unreadable(format!("there is no outcome {word} of this kind"))),
    }
}

pub(super) fn interval(duration: std::time::Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}

fn unreadable(text: String) -> sqlx::Error {
    sqlx::Error::Decode(text.into())
}
