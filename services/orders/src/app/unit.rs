//! The unit of work: orders are locked, changed, decided on, written and published by one transaction.

use sqlx::{PgConnection, Postgres, Transaction};
use stampede_bus::Message;
use stampede_contracts::{
    Code, Problem, StepId,
    api::{self, OrderState},
};
use stampede_telemetry::trace;
use tracing::{Instrument, Span};

use super::{App, Error};
use crate::domain::{Advance, Carrier, Order, Reply, Step, StepKind, StepState, Ticket};
use crate::events;
use crate::store::{Locked, Store, Write};
use crate::wakeups::Change;

/// What was written for one order: told to the rest of the world after the commit.
struct Written {
    locked: Locked,
    advance: Advance,
    tickets: usize,
    change: Change,
}

/// An order after its transaction.
pub(super) struct Moved {
    /// As it is now.
    pub(super) order: Order,
    /// The call that was begun, and is to be carried out now.
    pub(super) call: Option<Step>,
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
    /// Decides what follows from the changes, writes everything and commits; then wakes whoever waits. Gives the
    /// orders that changed; their calls are for the caller to carry out.
    pub(super) async fn conclude(
        &self,
        mut transaction: Transaction<'static, Postgres>,
        changed: Vec<Locked>,
    ) -> Result<Vec<Moved>, Error> {
        let mut written = Vec::with_capacity(changed.len());
        let mut messages = Vec::new();
        for locked in changed {
            let order_id = locked.order.id.to_string();
            let span = span_of(&locked.order);
            let Some((one, out)) = self.write(&mut transaction, locked).instrument(span).await? else {
                continue;
            };
            messages.extend(out.into_iter().map(|message| (order_id.clone(), message)));
            written.push(one);
        }
        if written.is_empty() {
            return Ok(Vec::new());
        }
        let stored = self.0.outbox.add_all(&mut transaction, &messages).await?;
        transaction.commit().await?;
        stored.nudge();
        Ok(written.into_iter().map(|written| self.tell(written)).collect())
    }

    /// Nothing is written when nothing changed.
    async fn write(
        &self,
        connection: &mut PgConnection,
        mut locked: Locked,
    ) -> Result<Option<(Written, Vec<Message>)>, Error> {
        let now = locked.now;
        let advance = self.0.plans.advance(&mut locked.order, now, StepId::new)?;
        if locked.order == locked.before {
            return Ok(None);
        }
        let order = &locked.order;
        let tickets = match &order.facts {
            Some(facts) if advance.reached(OrderState::Confirmed) => {
                Ticket::issue(order, facts, &self.0.ticket_key, now)
            }
            _ => Vec::new(),
        };
        let reply = if order.state.is_settled() && order.replied.is_none() {
            Some(final_reply(order, &tickets)?)
        } else {
            None
        };
        let settled = advance.transitions.iter().any(|transition| transition.to.is_settled());
        let change = if settled { Change::Answered } else { Change::Progress };
        let next_at = self.0.plans.refund_again_at(order).unwrap_or(now + self.0.timing.retry_after);
        let write = Write { reply: reply.as_ref(), next_at, change };
        Store::save(connection, &locked, write).await?;
        if !tickets.is_empty() {
            Store::issue(connection, &tickets).await?;
        }
        if advance.transitions.iter().any(|transition| transition.from == OrderState::Confirmed) {
            Store::revoke(connection, order.id, now).await?;
        }
        let messages = events::of_advance(order, &advance)?;
        if let Some(reply) = reply {
            locked.order.replied = Some(reply.status);
        }
        Ok(Some((Written { locked, advance, tickets: tickets.len(), change }, messages)))
    }

    /// After the commit.
    fn tell(&self, written: Written) -> Moved {
        let Written { locked: Locked { before, order, .. }, advance, tickets, change } = written;
        self.0.wakeups.wake(order.id, change);
        let total = order.facts.as_ref().map(|facts| facts.total);
        for step in order.steps.iter().filter(|step| !step.is_open()) {
            if before.step_by_id(step.id).is_none_or(|before| before.is_open()) {
                self.0.metrics.finished(step, total);
                self.tell_operators(&order, step);
            }
        }
        for transition in &advance.transitions {
            tracing::info!(order = %order.id, from = transition.from.as_str(), to = transition.to.as_str(), "an order changed its state");
            if transition.to.is_settled() {
                self.0.metrics.settled(transition.to, tickets);
            }
        }
        let call = advance.begun.into_iter().find(|step| step.kind.carrier() == Carrier::Inventory);
        Moved { order, call }
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
    Ok(Reply { status: problem.status, body: serde_json::to_vec(&problem)? })
}

/// An answer with the order and its secret.
pub(super) fn order_reply(
    status: u16,
    order: &Order,
    tickets: &[Ticket],
) -> Result<Reply, serde_json::Error> {
    let body = api::Order { order_secret: Some(order.secret.expose().to_owned()), ..order.to_api(tickets) };
    Ok(Reply { status, body: serde_json::to_vec(&body)? })
}
