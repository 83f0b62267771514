//! What goes out over JetStream, and what comes in.

use stampede_bus::{Delivery, Failure, Message, Verdict};
use stampede_contracts::{
    OrderId, StepId,
    command::{MailCommand, PaymentAction, PaymentCommand},
    event::{MailResult, OrderChanged, PaymentOutcome, PaymentResult},
};
use stampede_service::failure;

use crate::app::{App, Error, Incoming, Sender, Taken};
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

/// Takes results of `payments`, all in one transaction.
///
/// # Errors
/// When none of the batch was taken: the database is unavailable, or one of them breaks a rule.
pub async fn on_payments(app: App, batch: Vec<Delivery>) -> Result<Vec<Verdict>, Failure> {
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
pub async fn on_mails(app: App, batch: Vec<Delivery>) -> Result<Vec<Verdict>, Failure> {
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

type Read = (OrderId, StepId, Sender, Outcome);

async fn take(
    app: App,
    batch: Vec<Delivery>,
    read: impl Fn(&Delivery) -> Result<Read, String>,
) -> Result<Vec<Verdict>, Failure> {
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
    let taken = app.take_results(&readable).await.map_err(|error| match error {
        Error::Saga(_) | Error::Encoding(_) => Failure::Fault(error.into()),
        error => failure(error),
    })?;
    // One for each that was readable, in their order.
    let mut taken = taken.into_iter().map(verdict);
    read.into_iter()
        .map(|read| match read {
            Ok(_) => taken.next().ok_or_else(|| Failure::Fault("a result without a verdict".into())),
            Err(reason) => Ok(Verdict::Dead(reason)),
        })
        .collect()
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
