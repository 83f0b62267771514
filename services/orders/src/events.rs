//! What goes out over JetStream, and what comes in.

use std::time::Duration;

use stampede_bus::{BoxError, Delivery, Message, Verdict};
use stampede_contracts::{
    OrderId, StepId,
    command::{MailCommand, PaymentAction, PaymentCommand},
    event::{MailResult, OrderChanged, PaymentOutcome, PaymentResult},
};

use crate::app::{App, Incoming, Sender, Taken};
use crate::domain::{Advance, Carrier, Order, Outcome, Step, StepKind};

/// Longest text of a partner that is kept as the outcome of a step.
const REASON_MAX_CHARS: usize = 100;

/// Everything that is published because an order advanced.
///
/// # Errors
/// When an event has no form in JSON, which none of them lacks.
pub fn of_advance(order: &Order, advance: &Advance) -> Result<Vec<Message>, serde_json::Error> {
    let commands = advance.begun.iter().filter_map(|step| command(order, step).transpose());
    let changes = advance.transitions.iter().filter(|transition| transition.to.is_settled());
    let changes = changes.filter_map(|transition| {
        let facts = order.facts.as_ref()?;
        let event = OrderChanged {
            order_id: order.id,
            show_id: facts.show_id,
            state: transition.to,
            quantity: facts.quantity,
            total: facts.total,
        };
        Some(Message::new(&event, format!("{}.{}", order.id, transition.to.as_str())))
    });
    commands.chain(changes).collect()
}

/// The command that carries a step out; nothing for a step that is a call.
///
/// # Errors
/// As [`of_advance`].
pub fn command(order: &Order, step: &Step) -> Result<Option<Message>, serde_json::Error> {
    match (step.kind.carrier(), &order.facts) {
        (Carrier::Payments(action), Some(facts)) => {
            let authorise = order.step(StepKind::Authorise).map(|step| step.id);
            let command = PaymentCommand {
                step_id: step.id,
                order_id: order.id,
                action,
                amount: facts.total,
                authorisation: authorise.filter(|_| action != PaymentAction::Authorise),
            };
            Message::new(&command, step.id.to_string()).map(Some)
        }
        (Carrier::Notify(kind), _) => {
            let command = MailCommand { step_id: step.id, order_id: order.id, kind };
            Message::new(&command, step.id.to_string()).map(Some)
        }
        // Money moves only after the attach told how much.
        (Carrier::Inventory, _) | (Carrier::Payments(_), None) => Ok(None),
    }
}

/// Takes results of `payments`.
///
/// # Errors
/// When none of the batch could be taken, most likely because the database is away.
pub async fn on_payments(app: App, batch: Vec<Delivery>) -> Result<Vec<Verdict>, BoxError> {
    take(app, batch, |delivery| {
        let result: PaymentResult = delivery.decode().map_err(|error| error.to_string())?;
        Ok((result.order_id, result.step_id, Sender::Payments(result.action), payment_outcome(result)))
    })
    .await
}

/// Takes results of `notify`.
///
/// # Errors
/// As [`on_payments`].
pub async fn on_mails(app: App, batch: Vec<Delivery>) -> Result<Vec<Verdict>, BoxError> {
    take(app, batch, |delivery| {
        let result: MailResult = delivery.decode().map_err(|error| error.to_string())?;
        let outcome = if result.sent {
            Outcome::Done { detail: Some("handed to the mail server".to_owned()) }
        } else {
            Outcome::Refused { reason: "could not be sent; an operator looks after it".to_owned() }
        };
        Ok((result.order_id, result.step_id, Sender::Notify, outcome))
    })
    .await
}

/// Pause before a result that could not be taken is delivered again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

type Read = (OrderId, StepId, Sender, Outcome);

/// One transaction takes the whole batch. If that fails each message is tried by itself, so that a bad one holds back
/// nobody else's.
async fn take(
    app: App,
    batch: Vec<Delivery>,
    read: impl Fn(&Delivery) -> Result<Read, String>,
) -> Result<Vec<Verdict>, BoxError> {
    let read: Vec<Result<Incoming, String>> = batch
        .iter()
        .map(|delivery| {
            let (order_id, step_id, sender, outcome) = read(delivery)?;
            Ok(Incoming {
                event_id: delivery.ce_id.clone(),
                order_id,
                step_id,
                sender,
                outcome,
                traceparent: delivery.traceparent.clone(),
            })
        })
        .collect();
    let readable: Vec<Incoming> = read.iter().flatten().cloned().collect();
    let taken: Vec<Verdict> = match app.take_results(&readable).await {
        Ok(taken) => taken.into_iter().map(verdict).collect(),
        Err(error) if readable.len() == 1 => return Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, results = readable.len(), "a batch could not be taken; trying one by one");
            one_by_one(&app, &readable).await?
        }
    };
    let mut taken = taken.into_iter();
    let verdicts = read.into_iter().map(|read| match read {
        Ok(_) => taken.next().unwrap_or(Verdict::Again(AGAIN_AFTER)),
        Err(reason) => Verdict::Dead(reason),
    });
    Ok(verdicts.collect())
}

async fn one_by_one(app: &App, results: &[Incoming]) -> Result<Vec<Verdict>, BoxError> {
    let mut verdicts = Vec::with_capacity(results.len());
    let mut last_error = None;
    for result in results {
        match app.take_results(std::slice::from_ref(result)).await {
            Ok(taken) => verdicts.extend(taken.into_iter().map(verdict)),
            Err(error) => {
                tracing::warn!(%error, order = %result.order_id, step = %result.step_id, "a result could not be taken");
                verdicts.push(Verdict::Again(AGAIN_AFTER));
                last_error = Some(error);
            }
        }
    }
    match last_error {
        Some(error) if verdicts.iter().all(|verdict| matches!(verdict, Verdict::Again(_))) => {
            Err(error.into())
        }
        _ => Ok(verdicts),
    }
}

fn verdict(taken: Taken) -> Verdict {
    match taken {
        Taken::Recorded | Taken::Known => Verdict::Done,
        Taken::Stray => Verdict::Dead("no order has this step".to_owned()),
    }
}

fn payment_outcome(result: PaymentResult) -> Outcome {
    match result.outcome {
        PaymentOutcome::Succeeded { .. } => Outcome::Done { detail: None },
        PaymentOutcome::Declined { reason } => Outcome::Refused { reason: shorten(&reason) },
        PaymentOutcome::Refused { reason } => {
            // For operators; the buyer gets to read that it was refused.
            tracing::warn!(step = %result.step_id, action = result.action.as_str(), reason = shorten(&reason),
                "the payment provider refuses a step for good");
            Outcome::Refused { reason: "refused by the payment provider".to_owned() }
        }
    }
}

fn shorten(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).take(REASON_MAX_CHARS).collect()
}
