//! The unit of work: orders that were changed are decided on, written and published by one transaction.

use stampede_contracts::{
    Code, OrderId, Problem, StepId,
    api::{self, OrderState},
};
use stampede_telemetry::trace;
use tracing::Span;

use super::{App, Error};
use crate::domain::{Advance, Carrier, Order, Reply, Step, StepKind, StepState, Ticket};
use crate::events;
use crate::store::{Draft, Snapshot, Write};
use crate::wakeups::Change;

/// An order after its transaction.
pub(super) struct Moved {
    /// As it is now.
    pub(super) snapshot: Snapshot,
    /// The call that was begun, and is to be carried out now.
    pub(super) call: Option<Step>,
}

/// What became of orders that were to change.
#[derive(Default)]
pub(super) struct Concluded {
    /// Those that changed; their calls are for the caller to carry out.
    pub(super) moved: Vec<Moved>,
    /// Those that somebody else changed first: to be read and decided on again.
    pub(super) overtaken: Vec<OrderId>,
}

/// A span in the trace of the request that placed the order.
pub(super) fn span_of(order: &Order) -> Span {
    let span = tracing::info_span!("saga", order = %order.id);
    if let Some(parent) = &order.traceparent {
        trace::set_parent(&span, parent);
    }
    span
}

impl App {
    /// Decides what follows from the changes and writes everything; then wakes whoever waits.
    pub(super) async fn conclude(&self, drafts: Vec<Draft>) -> Result<Concluded, Error> {
        let mut concluded = Concluded::default();
        let (mut writes, mut advances) = (Vec::new(), Vec::new());
        for draft in drafts {
            let span = span_of(&draft.order);
            if let Some((write, advance)) = span.in_scope(|| self.decide(draft))? {
                writes.push(write);
                advances.push(advance);
            }
        }
        if writes.is_empty() {
            return Ok(concluded);
        }
        let written = self.0.store.save(&writes).await?;
        if writes.iter().any(|write| !write.messages.is_empty()) {
            self.0.outbox.nudge();
        }
        for (write, advance) in writes.into_iter().zip(advances) {
            let id = write.draft.order.id;
            if written.contains(&id) {
                concluded.moved.push(self.tell(write, advance));
            } else {
                tracing::debug!(order = %id, "somebody else changed the order first");
                concluded.overtaken.push(id);
            }
        }
        Ok(concluded)
    }

    /// What is to be written; nothing when nothing changed.
    fn decide(&self, mut draft: Draft) -> Result<Option<(Write, Advance)>, Error> {
        let now = draft.now;
        let advance = self.0.plans.advance(&mut draft.order, now, StepId::new)?;
        if draft.order == draft.before.order {
            return Ok(None);
        }
        let order = &draft.order;
        let tickets = match &order.facts {
            Some(facts) if advance.reached(OrderState::Confirmed) => {
                Ticket::issue(order, facts, &self.0.ticket_key.current, now)
            }
            _ => Vec::new(),
        };
        let reply = if order.state.is_settled() && order.replied.is_none() {
            Some(final_reply(order, &tickets)?)
        } else {
            None
        };
        let settled = advance.transitions.iter().any(|transition| transition.to.is_settled());
        let messages = events::of_advance(order, &advance)?;
        let aggregate = order.id.to_string();
        let write = Write {
            next_at: self.0.plans.refund_again_at(order).unwrap_or(now + self.0.timing.retry.first),
            mails_next_at: now + self.0.timing.mail.first,
            change: if settled { Change::Answered } else { Change::Progress },
            revoke: advance.transitions.iter().any(|transition| transition.from == OrderState::Confirmed),
            messages: messages.into_iter().map(|message| self.0.outbox.row(&aggregate, message)).collect(),
            draft,
            reply,
            tickets,
        };
        Ok(Some((write, advance)))
    }

    /// After the commit.
    fn tell(&self, write: Write, advance: Advance) -> Moved {
        let Write { mut draft, reply, change, tickets, .. } = write;
        draft.order.replied = draft.order.replied.or(reply.map(|reply| reply.status));
        let (before, order) = (&draft.before.order, &draft.order);
        self.0.wakeups.wake(order.id, change);
        let total = order.facts.as_ref().map(|facts| facts.total);
        for step in order.steps.iter().filter(|step| !step.is_open()) {
            if before.step_by_id(step.id).is_none_or(|before| before.is_open()) {
                self.0.metrics.finished(step, total);
                self.tell_operators(order, step);
            }
        }
        for transition in &advance.transitions {
            tracing::info!(order = %order.id, from = transition.from.as_str(), to = transition.to.as_str(), "an order changed its state");
            if transition.to.is_settled() {
                self.0.metrics.settled(transition.to, tickets.len());
            }
        }
        let call = advance.begun.into_iter().find(|step| step.kind.carrier() == Carrier::Inventory);
        Moved { snapshot: draft.into_written(), call }
    }

    /// Nobody else can end this: the money is owed to a buyer.
    fn tell_operators(&self, order: &Order, step: &Step) {
        if step.kind == StepKind::Refund
            && step.state == StepState::Refused
            && let Some(again_at) = self.0.plans.refund_again_at(order)
        {
            tracing::error!(order = %order.id, step = %step.id, %again_at,
                "the provider refused a refund: a person has to find out why, until then it is asked for again");
        }
    }
}

/// The first final answer, as it is repeated under its key for a day.
fn final_reply(order: &Order, tickets: &[Ticket]) -> Result<Reply, serde_json::Error> {
    let outcome = |kind| order.step(kind).and_then(|step| step.outcome.as_deref());
    let problem = match order.state {
        OrderState::Confirmed => return order_reply(201, order, tickets),
        OrderState::Declined => Problem::new(Code::PaymentDeclined)
            .detail(outcome(StepKind::Authorise).unwrap_or("declined").to_owned()),
        OrderState::Cancelled => {
            Problem::new(Code::OrderFailed).detail("It was cancelled before it was confirmed.")
        }
        _ => match outcome(StepKind::Attach).and_then(|word| word.parse().ok()) {
            // The hold was gone, or never this session's.
            Some(code) => Problem::new(code),
            None => Problem::new(Code::OrderFailed),
        },
    };
    let problem = problem.trace_id(order.trace_id().map(str::to_owned));
    Ok(Reply { status: problem.status, body: serde_json::to_string(&problem)? })
}

/// An answer with the order and its secret.
pub(super) fn order_reply(
    status: u16,
    order: &Order,
    tickets: &[Ticket],
) -> Result<Reply, serde_json::Error> {
    let body = api::Order { order_secret: Some(order.secret.expose().to_owned()), ..order.to_api(tickets) };
    Ok(Reply { status, body: serde_json::to_string(&body)? })
}
