//! Results of commands: many orders in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use stampede_contracts::{OrderId, StepId, command::PaymentAction};
use stampede_telemetry::trace;

use super::unit::span_of;
use super::{App, Error};
use crate::domain::{Carrier, Order, Outcome, Recorded, StepKind};
use crate::store::{Draft, Store};

/// A result as it came.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// CloudEvents id, for the inbox.
    pub event_id: String,
    /// The order.
    pub order_id: OrderId,
    /// The step.
    pub step_id: StepId,
    /// Who says so.
    pub sender: Sender,
    /// What became of it.
    pub outcome: Outcome,
    /// The trace of the message.
    pub traceparent: Option<String>,
}

/// Who sent a result, and about what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// `payments`, about this.
    Payments(PaymentAction),
    /// `notify`, about a mail; which one only the step knows.
    Notify,
}

impl Sender {
    /// Nobody speaks for another's step.
    fn carries_out(self, kind: StepKind) -> bool {
        match kind.carrier() {
            Carrier::Payments(action) => self == Self::Payments(action),
            Carrier::Notify(_) => self == Self::Notify,
            Carrier::Inventory => false,
        }
    }
}

impl Incoming {
    fn is_about_a_step_of(&self, order: &Order) -> bool {
        order.step_by_id(self.step_id).is_some_and(|step| self.sender.carries_out(step.kind))
    }
}

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was news.
    Recorded,
    /// It was known, or nobody waited for it any more.
    Known,
    /// No order has such a step.
    Stray,
}

impl App {
    /// Takes results: one [`Taken`] each, in their order.
    ///
    /// # Errors
    /// Those of the database, among them a seat that has a ticket already; then any of them may not have been taken.
    pub async fn take_results(&self, results: &[Incoming]) -> Result<Vec<Taken>, Error> {
        let mut taken = vec![Taken::Stray; results.len()];
        let mut orders: BTreeSet<OrderId> = results.iter().map(|result| result.order_id).collect();
        while !orders.is_empty() {
            let ids: Vec<OrderId> = orders.iter().copied().collect();
            let read = Store::snapshots(self.0.store.pool(), &ids).await?.into_iter().map(Draft::from);
            let mut drafts: BTreeMap<OrderId, Draft> = read.map(|draft| (draft.order.id, draft)).collect();
            for (taken, result) in taken.iter_mut().zip(results) {
                if let Some(draft) = drafts.get_mut(&result.order_id) {
                    *taken = apply(result, draft);
                }
            }
            let concluded = self.conclude(drafts.into_values().collect()).await?;
            concluded.moved.into_iter().for_each(|moved| self.carry_on(moved));
            orders = concluded.overtaken.into_iter().collect();
        }
        Ok(taken)
    }
}

fn apply(result: &Incoming, draft: &mut Draft) -> Taken {
    if !result.is_about_a_step_of(&draft.order) {
        // It leaves no row in the inbox: should its step turn up, it can be sent again.
        return Taken::Stray;
    }
    let span = span_of(&draft.order);
    if let Some(message) = &result.traceparent {
        trace::add_link(&span, message);
    }
    let _entered = span.entered();
    match draft.order.record(result.step_id, result.outcome.clone(), draft.now) {
        Recorded::New => {
            draft.events.push(result.event_id.clone());
            Taken::Recorded
        }
        Recorded::Known => Taken::Known,
        Recorded::NoSuchStep => Taken::Stray,
    }
}
