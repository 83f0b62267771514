//! Carrying out calls, step after step, in a task that no request owns.

use stampede_contracts::{OrderId, StepId};
use tracing::Instrument;

use super::unit::{Moved, span_of};
use super::{App, Error};
use crate::clients::Called;
use crate::domain::{Order, Recorded, Step};
use crate::store::Store;

impl App {
    /// Carries out the call that was begun, if there is one, and those that follow from it. Returns at once; the work
    /// is an owned task, because a client that goes away must not stop a saga.
    pub(super) fn carry_on(&self, moved: Moved) {
        if let Moved { order, call: Some(call) } = moved {
            let span = span_of(&order);
            self.0.tasks.spawn(self.clone().drive(order, call).instrument(span));
        }
    }

    /// A step that cannot be finished here is tried again by a sweeper, on this replica or another.
    async fn drive(self, mut order: Order, mut step: Step) {
        while !self.0.shutdown.is_cancelled() {
            let Some(called) = self.0.inventory.carry_out(&order, &step).await else { return };
            match self.record_call(order.id, step.id, called).await {
                Ok(Some(Moved { order: next, call: Some(call) })) => (order, step) = (next, call),
                Ok(_) => return,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(order = %order.id, step = %step.id, error, "an outcome could not be recorded");
                    return;
                }
            }
        }
    }

    /// Records the outcome of a call by compare-and-set; nothing when somebody else has done so.
    async fn record_call(
        &self,
        order: OrderId,
        step: StepId,
        called: Called,
    ) -> Result<Option<Moved>, Error> {
        let mut transaction = self.0.store.begin().await?;
        let mut locked = Store::lock(&mut transaction, &[order]).await?;
        let Some(this) = locked.first_mut() else { return Ok(None) };
        if this.order.record(step, called.outcome, this.now) != Recorded::New {
            return Ok(None);
        }
        if called.facts.is_some() {
            this.order.facts = called.facts;
        }
        Ok(self.conclude(transaction, locked).await?.pop())
    }
}
