//! Carrying out calls, step after step, in a task that no request owns.

use tracing::Instrument;

use super::unit::{Moved, span_of};
use super::{App, Error};
use crate::clients::Called;
use crate::domain::{Recorded, Step};
use crate::store::{Draft, Snapshot, Store};

impl App {
    /// Carries out the call that was begun, if there is one, and those that follow from it. Returns at once; the work
    /// is an owned task, because a client that goes away must not stop a saga.
    pub(super) fn carry_on(&self, moved: Moved) {
        if let Moved { snapshot, call: Some(call) } = moved {
            let span = span_of(&snapshot.order);
            self.0.tasks.spawn(self.clone().drive(snapshot, call).instrument(span));
        }
    }

    /// A step that cannot be finished here is tried again by a sweeper, on this replica or another.
    async fn drive(self, mut snapshot: Snapshot, mut step: Step) {
        while !self.0.shutdown.is_cancelled() {
            let order = snapshot.order.id;
            let Some(called) = self.0.inventory.carry_out(&snapshot.order, &step).await else { return };
            match self.record_call(snapshot, &step, called).await {
                Ok(Some(Moved { snapshot: next, call: Some(call) })) => (snapshot, step) = (next, call),
                Ok(_) => return,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(%order, step = %step.id, error, "an outcome could not be recorded");
                    return;
                }
            }
        }
    }

    /// Records the outcome of a call; nothing when somebody else has done so. Most often nobody has changed the order
    /// since the call began, and it need not be read again.
    async fn record_call(
        &self,
        mut snapshot: Snapshot,
        step: &Step,
        called: Called,
    ) -> Result<Option<Moved>, Error> {
        loop {
            let mut draft = Draft::from(snapshot);
            let id = draft.order.id;
            if draft.order.record(step.id, called.outcome.clone(), draft.now) != Recorded::New {
                return Ok(None);
            }
            if called.facts.is_some() {
                draft.order.facts.clone_from(&called.facts);
            }
            let mut concluded = self.conclude(vec![draft]).await?;
            if concluded.overtaken.is_empty() {
                return Ok(concluded.moved.pop());
            }
            let Some(read) = Store::snapshots(self.0.store.pool(), &[id]).await?.pop() else {
                return Ok(None);
            };
            snapshot = read;
        }
    }
}
