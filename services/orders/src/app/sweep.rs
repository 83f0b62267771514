//! The sweeper: whatever a crash, a lost message or a silent partner left behind is taken up again.

use std::time::Duration;

use stampede_bus::BoxError;
use stampede_contracts::OrderId;
use stampede_idempotency::inbox;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::unit::{Moved, span_of};
use super::{App, Error};
use crate::events;
use crate::store::{Draft, Store};

/// How often old keys and inbox rows are deleted.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(600);
/// Longer than any event can come again: the stream of facts keeps three days, dead letters thirty.
const INBOX_KEPT_FOR: Duration = Duration::from_secs(31 * 24 * 60 * 60);
/// Keys forgotten by one statement.
const KEYS_BATCH: u32 = 1_000;

impl App {
    /// Sweeps until shutdown. Every replica does; row locks keep them apart.
    ///
    /// # Errors
    /// None: a sweep that fails is logged, and the next one tries again.
    pub async fn sweep_until(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        let mut ticks = interval(self.0.timing.sweep_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut clean_at = Instant::now();
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            report("sweeping", self.sweep().await);
            if Instant::now() >= clean_at {
                clean_at = Instant::now() + HOUSEKEEPING_EVERY;
                report("housekeeping", self.clean().await);
            }
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<(), Error> {
        self.0.metrics.backlog(&self.0.store.backlog().await?);
        for order in self.0.store.undecided(self.0.timing.sweep_batch).await? {
            // One order that cannot be decided on does not hold back the others.
            report("deciding", self.decide_on(order).await);
        }
        self.send_again().await
    }

    /// Decides on an order for which no result came. One that somebody changes meanwhile is not without a result.
    async fn decide_on(&self, id: OrderId) -> Result<(), Error> {
        let snapshots = Store::snapshots(self.0.store.pool(), &[id]).await?;
        let concluded = self.conclude(snapshots.into_iter().map(Draft::from).collect()).await?;
        concluded.moved.into_iter().for_each(|moved| self.carry_on(moved));
        Ok(())
    }

    /// Sends commands again, under another message id, and carries calls out again.
    async fn send_again(&self) -> Result<(), Error> {
        if !self.0.bus.is_connected() {
            // What was sent lies in the outbox, and more of it would only pile up there.
            return Ok(());
        }
        let timing = &self.0.timing;
        let mut transaction = self.0.store.begin().await?;
        let due =
            Store::take_due_steps(&mut transaction, timing.retry_after, timing.retry_max, timing.sweep_batch)
                .await?;
        if due.is_empty() {
            return Ok(());
        }
        let ids: Vec<OrderId> = due.iter().map(|step| step.order_id).collect();
        let snapshots = Store::snapshots(&mut *transaction, &ids).await?;
        let (mut messages, mut calls) = (Vec::new(), Vec::new());
        for due in &due {
            let Some(snapshot) = snapshots.iter().find(|snapshot| snapshot.order.id == due.order_id) else {
                continue;
            };
            let order = &snapshot.order;
            let Some(step) = order.step_by_id(due.step_id) else { continue };
            tracing::info!(order = %order.id, step = %step.id, kind = step.kind.as_str(), attempt = due.attempt,
                "a step has no outcome yet; trying again");
            self.0.metrics.repeated(step.kind);
            // In the order's own trace.
            match span_of(order).in_scope(|| events::command(order, step))? {
                Some(message) => messages.push((order.id.to_string(), message.attempt(due.attempt))),
                None => calls.push(Moved { snapshot: snapshot.clone(), call: Some(step.clone()) }),
            }
        }
        let stored = self.0.outbox.add_all(&mut transaction, &messages).await?;
        transaction.commit().await?;
        stored.nudge();
        calls.into_iter().for_each(|call| self.carry_on(call));
        Ok(())
    }

    async fn clean(&self) -> Result<(), Error> {
        while self.0.store.forget_keys(self.0.timing.keys_kept_for, KEYS_BATCH).await? > 0 {}
        inbox::purge(self.0.store.pool(), INBOX_KEPT_FOR).await?;
        Ok(())
    }
}

fn report(work: &'static str, result: Result<(), Error>) {
    if let Err(error) = result {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(work, error, "the sweeper failed; it tries again");
    }
}
