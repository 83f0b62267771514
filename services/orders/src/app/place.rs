//! Placing an order, and waiting for what comes of it.

use std::time::Duration;

use stampede_contracts::{HoldId, OrderId, SessionId, StepId};
use stampede_deadline::Deadline;
use stampede_idempotency::{Fingerprint, Key};
use stampede_service::Rotating;
use stampede_telemetry::trace;
use tokio::time::{Instant, sleep_until, timeout};

use super::unit::{Moved, order_reply};
use super::{App, Error};
use crate::domain::{Buyer, CardToken, OrderSecret, Reply, StepKind};
use crate::store::{NewOrder, Placement};
use crate::wakeups::{Change, Subscription};

/// Whoever waits looks again after this time even if nobody woke them. An answer is told to all replicas, so this is for
/// what goes wrong only; a crowd that waits must not keep the database from what it waits for.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The least time before the deadline at which an answer is given.
const MARGIN_MIN: Duration = Duration::from_millis(50);
/// A tenth of the time there was.
const MARGIN_SHARE: u32 = 10;

/// A request to place an order, checked.
#[derive(Debug)]
pub struct PlaceOrder {
    /// Whose.
    pub session: SessionId,
    /// Its key.
    pub key: Key,
    /// Of path and body.
    pub fingerprint: Rotating<Fingerprint>,
    /// What to buy.
    pub hold_id: HoldId,
    /// Who buys.
    pub buyer: Buyer,
    /// With what.
    pub card: CardToken,
}

impl App {
    /// Places an order, once per key, and waits until it is answered: by its saga, or shortly before `deadline` with
    /// 202. The order goes on either way.
    ///
    /// # Errors
    /// [`Error::KeyReused`], [`Error::KeyInProgress`], or the database's.
    pub async fn place(&self, request: PlaceOrder, deadline: Deadline) -> Result<(OrderId, Reply), Error> {
        let id = OrderId::new();
        let fingerprint = request.fingerprint;
        let new = NewOrder {
            id,
            session: request.session,
            key: request.key,
            fingerprint: fingerprint.current,
            hold_id: request.hold_id,
            buyer: request.buyer,
            card: request.card,
            secret: OrderSecret::from_random(rand::random()),
            traceparent: trace::traceparent(),
            attach: StepId::new(),
            decide_within: self.0.timing.decide_within,
            answer_within: deadline.remaining(),
            retry_after: self.0.timing.retry.first,
        };
        let answer_at = answer_at(deadline);
        let mut subscription = self.0.wakeups.subscribe(id);
        let is_first = match self.0.store.place(new).await? {
            Placement::New(snapshot) => {
                self.0.metrics.placed();
                tracing::info!(order = %id, "an order was placed");
                let call = snapshot.order.step(StepKind::Attach).cloned();
                self.carry_on(Moved { snapshot: *snapshot, call });
                true
            }
            Placement::Known { fingerprint: first, .. } if fingerprint.iter().all(|it| *it != first) => {
                return Err(Error::KeyReused);
            }
            Placement::Known { id, .. } => {
                subscription = self.0.wakeups.subscribe(id);
                false
            }
        };
        let id = subscription.order();
        let reply = self.answer(subscription, answer_at, is_first).await?;
        Ok((id, reply))
    }

    async fn answer(
        &self,
        mut subscription: Subscription,
        answer_at: Instant,
        is_first: bool,
    ) -> Result<Reply, Error> {
        let id = subscription.order();
        // Nobody can have answered an order that has just been placed.
        let mut may_be_answered = !is_first;
        loop {
            if may_be_answered && let Some(reply) = self.0.store.answered(id).await?.reply {
                return Ok(reply);
            }
            may_be_answered = true;
            tokio::select! {
                _woken = timeout(LOOK_EVERY, subscription.answered()) => {}
                () = sleep_until(answer_at) => break,
            }
        }
        if !is_first {
            let answered = self.0.store.answered(id).await?;
            match answered.reply {
                Some(reply) => return Ok(reply),
                None if answered.is_running => return Err(Error::KeyInProgress),
                None => {}
            }
        }
        // Either the first request, or it ended without an answer, with its process or its connection.
        self.answer_accepted(id).await
    }

    /// Stores the answer 202, unless the saga was faster.
    async fn answer_accepted(&self, id: OrderId) -> Result<Reply, Error> {
        let view = self.0.store.order(id).await?.ok_or(Error::OrderNotFound)?;
        let reply = order_reply(202, &view.order, &view.tickets)?;
        if self.0.store.answer_once(id, &reply).await? {
            self.0.wakeups.wake(id, Change::Answered);
            return Ok(reply);
        }
        // Answers are never taken back.
        self.0.store.answered(id).await?.reply.ok_or(Error::OrderNotFound)
    }
}

/// A little before the deadline: a tenth of what is left, at least 50 ms.
pub(super) fn answer_at(deadline: Deadline) -> Instant {
    let left = deadline.remaining();
    let margin = (left / MARGIN_SHARE).max(MARGIN_MIN);
    Instant::now() + left.saturating_sub(margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_answer_comes_a_tenth_before_the_deadline_and_at_least_50_ms() {
        let after = |millis| answer_at(Deadline::after(Duration::from_millis(millis))) - Instant::now();
        assert_eq!(after(5_000), Duration::from_millis(4_500));
        assert_eq!(after(200), Duration::from_millis(150));
        assert_eq!(after(20), Duration::ZERO);
    }
}
