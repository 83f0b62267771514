//! The sweeper: whatever a crash, a lost message or a silent partner left behind is taken up again.

use std::time::Duration;

use stampede_bus::BoxError;
use stampede_contracts::OrderId;
use stampede_contracts::command::MailKind;
use stampede_idempotency::inbox;
use stampede_postgres::{PgConnection, is_of_data};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::unit::{Moved, span_of};
use super::{App, Error};
use crate::domain::StepKind::{
    self, Attach, Authorise, Capture, Confirm, Detach, Free, Notify, Refund, Void,
};
use crate::events;
use crate::store::{Budget, Draft, Round, Snapshot, Store};
use crate::wakeups::Change;

/// How often old keys and inbox rows are deleted.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(600);
/// Longer than any event can come again: the stream of facts keeps three days, dead letters thirty.
const INBOX_KEPT_FOR: Duration = Duration::from_secs(31 * 24 * 60 * 60);
/// Keys forgotten by one statement.
const KEYS_BATCH: u32 = 1_000;
/// Steps that are repeated out of a budget of their own, so that none waits behind a kind of which there may be thousands:
/// no repair of money behind mails, and no undo behind what buyers wait for.
const BUDGETS: [&[StepKind]; 5] = [
    &[Detach, Free],
    &[Attach, Confirm],
    &[Void, Refund],
    &[Authorise, Capture],
    &[Notify(MailKind::Tickets), Notify(MailKind::Cancelled), Notify(MailKind::Failed)],
];

impl App {
    /// Sweeps until shutdown. Every replica does; row locks keep them apart.
    ///
    /// # Errors
    /// None: a sweep that fails is logged, and the next one tries again.
    pub async fn sweep_until(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        let mut ticks = interval(self.0.timing.sweep_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut clean_at = Instant::now();
        let mut round = None;
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            report("counting", self.count().await);
            report("deciding", self.decide_on_next(&mut round).await);
            report("sending again", self.send_again().await);
            if Instant::now() >= clean_at {
                clean_at = Instant::now() + HOUSEKEEPING_EVERY;
                report("housekeeping", self.clean().await);
            }
        }
        Ok(())
    }

    async fn count(&self) -> Result<(), Error> {
        self.0.metrics.backlog(&self.0.store.backlog().await?);
        Ok(())
    }

    async fn decide_on_next(&self, round: &mut Option<Round>) -> Result<(), Error> {
        let (orders, next) = self.0.store.undecided(*round, self.0.timing.sweep_batch).await?;
        *round = next;
        for order in orders {
            // One order that cannot be decided on does not hold back the others.
            report("deciding", self.decide_on(order).await);
        }
        Ok(())
    }

    /// Decides on an order for which no result came. One that somebody changes meanwhile is not without a result.
    async fn decide_on(&self, id: OrderId) -> Result<(), Error> {
        let snapshots = Store::snapshots(self.0.store.pool(), &[id]).await?;
        let concluded = self.conclude(snapshots.into_iter().map(Draft::from).collect()).await?;
        concluded.moved.into_iter().for_each(|moved| self.carry_on(moved));
        Ok(())
    }

    /// Sends commands again, under another message id, and carries calls out again. Nothing is added to a lane that is
    /// blocked: the command is still in it.
    async fn send_again(&self) -> Result<(), Error> {
        if !self.0.bus.is_connected() {
            // What was sent lies in the outbox, and more of it would only pile up there.
            return Ok(());
        }
        let blocked = self.0.outbox.blocked().await?;
        let mut transaction = self.0.store.begin().await?;
        let due = Store::take_due_steps(&mut transaction, &self.budgets()).await?;
        let ids: Vec<OrderId> = due.iter().map(|step| step.order_id).collect();
        let snapshots = readable(&mut transaction, &ids).await?;
        let (mut messages, mut calls) = (Vec::new(), Vec::new());
        for due in &due {
            let Some(snapshot) = snapshots.iter().find(|snapshot| snapshot.order.id == due.order_id) else {
                continue;
            };
            let order = &snapshot.order;
            let Some(step) = order.step_by_id(due.step_id) else { continue };
            // In the order's own trace.
            let command = span_of(order).in_scope(|| events::command(order, step))?;
            let aggregate = order.id.to_string();
            if command.as_ref().is_some_and(|command| blocked.has(&aggregate, command)) {
                continue;
            }
            tracing::info!(order = %order.id, step = %step.id, kind = step.kind.as_str(), attempt = due.attempt,
                "a step has no outcome yet; trying again");
            self.0.metrics.repeated(step.kind);
            match command {
                Some(message) => messages.push((aggregate, message.attempt(due.attempt))),
                None => calls.push(Moved { snapshot: snapshot.clone(), call: Some(step.clone()) }),
            }
        }
        let stored = self.0.outbox.add_all(&mut transaction, &messages).await?;
        transaction.commit().await?;
        stored.nudge();
        ids.into_iter().for_each(|order| self.0.wakeups.wake(order, Change::Progress));
        calls.into_iter().for_each(|call| self.carry_on(call));
        Ok(())
    }

    fn budgets(&self) -> Vec<Budget> {
        let timing = &self.0.timing;
        let budget = |kinds: &&[StepKind]| {
            let is_mail = kinds.iter().any(|kind| matches!(kind, Notify(_)));
            let pauses = if is_mail { timing.mail } else { timing.retry };
            Budget::new(kinds, pauses, timing.sweep_batch)
        };
        BUDGETS.iter().map(budget).collect()
    }

    async fn clean(&self) -> Result<(), Error> {
        while self.0.store.forget_keys(self.0.timing.keys_kept_for, KEYS_BATCH).await? > 0 {}
        inbox::purge(self.0.store.pool(), INBOX_KEPT_FOR).await?;
        Ok(())
    }
}

/// The orders among these that this version can read. One that it cannot is the matter of a person, or of a newer version,
/// and does not hold back the others.
async fn readable(connection: &mut PgConnection, ids: &[OrderId]) -> Result<Vec<Snapshot>, Error> {
    match Store::snapshots(&mut *connection, ids).await {
        Err(error) if is_of_data(&error) => {}
        read => return Ok(read?),
    }
    let mut all = Vec::with_capacity(ids.len());
    for id in ids {
        match Store::snapshots(&mut *connection, &[*id]).await {
            Err(error) if is_of_data(&error) => {
                tracing::error!(order = %id, %error, "an order cannot be read");
            }
            read => all.extend(read?),
        }
    }
    Ok(all)
}

fn report(work: &'static str, result: Result<(), Error>) {
    if let Err(error) = result {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(work, error, "the sweeper failed; it tries again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_step_is_sent_again_out_of_one_budget() {
        let kinds = BUDGETS.concat();
        assert_eq!(kinds.len(), StepKind::ALL.len());
        assert!(StepKind::ALL.iter().all(|kind| kinds.contains(kind)));
    }
}
