//! Results of commands: many orders in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use stampede_contracts::{OrderId, StepId, command::PaymentAction};
use stampede_idempotency::inbox;
use stampede_telemetry::trace;

use super::unit::span_of;
use super::{App, Error};
use crate::domain::{Carrier, Order, Outcome, Recorded, StepKind};
use crate::store::{Locked, Store};

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
    /// Takes results, all or none: one [`Taken`] each, in their order.
    ///
    /// # Errors
    /// Those of the database, among them a seat that has a ticket already; then nothing was taken.
    pub async fn take_results(&self, results: &[Incoming]) -> Result<Vec<Taken>, Error> {
        if results.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = self.0.store.begin().await?;
        let orders: BTreeSet<OrderId> = results.iter().map(|result| result.order_id).collect();
        let orders: Vec<OrderId> = orders.into_iter().collect();
        let locked = Store::lock(&mut transaction, &orders).await?;
        let mut locked: BTreeMap<OrderId, Locked> =
            locked.into_iter().map(|locked| (locked.order.id, locked)).collect();

        let is_ours = |result: &&Incoming| {
            locked.get(&result.order_id).is_some_and(|locked| result.is_about_a_step_of(&locked.order))
        };
        // A stray event leaves no row: should its order turn up, it can be sent again.
        let ours: Vec<&str> = results.iter().filter(is_ours).map(|result| result.event_id.as_str()).collect();
        let is_new = inbox::claim(&mut transaction, &ours).await?;
        let mut is_new = is_new.into_iter();

        let taken: Vec<Taken> = results
            .iter()
            .map(|result| match locked.get_mut(&result.order_id) {
                Some(locked) if result.is_about_a_step_of(&locked.order) => match is_new.next() {
                    Some(true) => apply(result, locked),
                    _ => Taken::Known,
                },
                _ => Taken::Stray,
            })
            .collect();
        let changed: Vec<Locked> = locked.into_values().collect();
        for moved in self.conclude(transaction, changed).await? {
            self.carry_on(moved);
        }
        Ok(taken)
    }
}

fn apply(result: &Incoming, locked: &mut Locked) -> Taken {
    let span = span_of(&locked.order);
    if let Some(message) = &result.traceparent {
        trace::add_link(&span, message);
    }
    let _entered = span.entered();
    match locked.order.record(result.step_id, result.outcome.clone(), locked.now) {
        Recorded::New => Taken::Recorded,
        Recorded::Known => Taken::Known,
        Recorded::NoSuchStep => Taken::Stray,
    }
}
