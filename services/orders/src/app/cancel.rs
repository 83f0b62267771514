//! Cancelling an order.

use stampede_contracts::{OrderId, api, api::OrderState};
use stampede_deadline::Deadline;
use tokio::time::{sleep_until, timeout};

use super::place::{LOOK_EVERY, answer_at};
use super::{App, Caller, Error};
use crate::store::{Draft, Store};

/// What a cancellation came to.
#[derive(Debug)]
pub struct Cancelled {
    /// The order now.
    pub order: api::Order,
    /// Whether it is all done; if not, it goes on by itself.
    pub is_settled: bool,
}

impl App {
    /// Cancels an order: undoes what was done before the pivot, and gives the money back after it. Again and again
    /// the same; of an order that ended without a sale nothing is left to cancel, which is no error.
    ///
    /// Waits until shortly before `deadline` for the end, but not for a capture whose outcome is unknown.
    ///
    /// # Errors
    /// [`Error::OrderNotFound`], [`Error::CancelTooLate`], or the database's.
    pub async fn cancel(&self, id: OrderId, caller: &Caller, deadline: Deadline) -> Result<Cancelled, Error> {
        let answer_at = answer_at(deadline);
        let mut subscription = self.0.wakeups.subscribe(id);
        let capture_is_open = self.request_cancel(id, caller).await?;
        loop {
            let order = self.order(id, caller).await?;
            let is_settled = order.state.is_settled();
            if is_settled || capture_is_open {
                return Ok(Cancelled { order, is_settled });
            }
            tokio::select! {
                _woken = timeout(LOOK_EVERY, subscription.answered()) => {}
                () = sleep_until(answer_at) => return Ok(Cancelled { order, is_settled }),
            }
        }
    }

    /// Writes the wish down and begins what follows. Says whether a capture has to be awaited first.
    async fn request_cancel(&self, id: OrderId, caller: &Caller) -> Result<bool, Error> {
        loop {
            let read = Store::snapshots(self.0.store.pool(), &[id]).await?.pop();
            let mut draft = Draft::from(read.ok_or(Error::OrderNotFound)?);
            let order = &mut draft.order;
            if !caller.may_see(order.session, &order.secret) {
                return Err(Error::OrderNotFound);
            }
            let capture_is_open = order.state == OrderState::Pending && order.is_past_pivot();
            let can_be_cancelled = matches!(order.state, OrderState::Pending | OrderState::Confirmed);
            if !can_be_cancelled || order.cancel_requested_at.is_some() {
                return Ok(capture_is_open);
            }
            if order.facts.as_ref().is_some_and(|facts| facts.show.cancel_until <= draft.now) {
                return Err(Error::CancelTooLate);
            }
            order.request_cancel(draft.now);
            let concluded = self.conclude(vec![draft]).await?;
            if concluded.overtaken.is_empty() {
                concluded.moved.into_iter().for_each(|moved| self.carry_on(moved));
                return Ok(capture_is_open);
            }
        }
    }
}
