//! The life of a hold: free → held → attached → sold, and every way back.

use stampede_contracts::inventory::{ATTACHED_GRACE, HoldState};
use stampede_contracts::{OrderId, Timestamp};

use super::block::{Places, Seat};

/// What decides about a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its state.
    pub state: HoldState,
    /// The order it is attached or sold to, or was when it ended.
    pub order: Option<OrderId>,
    /// When it ends by itself while it is held.
    pub expires_at: Timestamp,
    /// When it ends by itself while it is attached.
    pub attached_until: Option<Timestamp>,
    /// Orders that gave it back and never get it again.
    pub let_go: Vec<OrderId>,
    /// What it has of its block.
    pub places: Places,
}

/// What somebody wants of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Its session, or the lobby: give the seats back.
    Release,
    /// Make it part of an order that is decided by then.
    Attach(OrderId, Timestamp),
    /// The order was declined.
    Detach(OrderId),
    /// The order's seats are sold.
    Confirm(OrderId),
    /// The order failed or was cancelled.
    Free(OrderId),
    /// Its time may be over.
    Expire,
}

/// What becomes of a wish that is not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The hold and its seats change.
    Changed(Next),
    /// The hold does not belong to the order, and never will.
    LetGo(OrderId),
    /// It is so already, or does not concern this hold.
    Nothing,
}

/// The new state of a hold and of its seats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// What its seats were.
    pub from: Seat,
    /// What they become.
    pub to: Seat,
    /// The hold's state.
    pub state: HoldState,
    /// Its order.
    pub order: Option<OrderId>,
    /// When it ends by itself while it is attached.
    pub attached_until: Option<Timestamp>,
    /// Who gives it back with this change.
    pub let_go: Option<OrderId>,
}

/// Why a wish is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The hold ended, or belongs to another order.
    Gone,
    /// The hold belongs to an order.
    Attached,
    /// The seats are sold; only freeing takes them back.
    Sold,
}

impl Hold {
    /// Whether its time is over, whether or not somebody has noticed.
    pub fn is_over(&self, now: Timestamp) -> bool {
        match self.state {
            HoldState::Held => self.expires_at <= now,
            HoldState::Attached => self.attached_until.is_some_and(|until| until <= now),
            HoldState::Sold => false,
            HoldState::Freed => true,
        }
    }

    /// What becomes of a wish.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn decide(&self, wish: Wish, now: Timestamp) -> Result<Outcome, Refusal> {
        match wish {
            Wish::Release => self.release(),
            Wish::Attach(order, decide_by) => self.attach(order, decide_by, now),
            Wish::Detach(order) => self.detach(order, now),
            Wish::Confirm(order) => self.confirm(order),
            Wish::Free(order) => Ok(self.free(order)),
            Wish::Expire if self.state != HoldState::Freed && self.is_over(now) => Ok(self.freed()),
            Wish::Expire => Ok(Outcome::Nothing),
        }
    }

    fn release(&self) -> Result<Outcome, Refusal> {
        match self.state {
            HoldState::Held => Ok(self.freed()),
            HoldState::Freed => Ok(Outcome::Nothing),
            HoldState::Attached | HoldState::Sold => Err(Refusal::Attached),
        }
    }

    fn attach(&self, order: OrderId, decide_by: Timestamp, now: Timestamp) -> Result<Outcome, Refusal> {
        match self.state {
            HoldState::Attached | HoldState::Sold if self.order == Some(order) => Ok(Outcome::Nothing),
            // A message that was delayed on its way must not give the seats to an order that ended long ago.
            _ if self.let_go.contains(&order) || decide_by <= now => Err(Refusal::Gone),
            HoldState::Held if !self.is_over(now) => Ok(Outcome::Changed(Next {
                from: Seat::Held,
                to: Seat::Attached,
                state: HoldState::Attached,
                order: Some(order),
                attached_until: Some(decide_by + ATTACHED_GRACE),
                let_go: None,
            })),
            _ => Err(Refusal::Gone),
        }
    }

    fn detach(&self, order: OrderId, now: Timestamp) -> Result<Outcome, Refusal> {
        match self.state {
            HoldState::Attached if self.order == Some(order) && self.expires_at > now => {
                Ok(Outcome::Changed(Next {
                    from: Seat::Attached,
                    to: Seat::Held,
                    state: HoldState::Held,
                    order: None,
                    attached_until: None,
                    let_go: Some(order),
                }))
            }
            HoldState::Attached if self.order == Some(order) => Ok(self.freed()),
            HoldState::Sold if self.order == Some(order) => Err(Refusal::Sold),
            _ => Ok(self.never(order)),
        }
    }

    fn confirm(&self, order: OrderId) -> Result<Outcome, Refusal> {
        match self.state {
            HoldState::Attached if self.order == Some(order) => Ok(Outcome::Changed(Next {
                from: Seat::Attached,
                to: Seat::Sold,
                state: HoldState::Sold,
                order: self.order,
                attached_until: None,
                let_go: None,
            })),
            HoldState::Sold if self.order == Some(order) => Ok(Outcome::Nothing),
            _ => Err(Refusal::Gone),
        }
    }

    fn free(&self, order: OrderId) -> Outcome {
        match self.state {
            HoldState::Attached | HoldState::Sold if self.order == Some(order) => self.freed(),
            _ => self.never(order),
        }
    }

    /// The end. The order stays, so that a repeated question finds what became of it.
    fn freed(&self) -> Outcome {
        let from = match self.state {
            HoldState::Held => Seat::Held,
            HoldState::Attached => Seat::Attached,
            HoldState::Sold => Seat::Sold,
            HoldState::Freed => return Outcome::Nothing,
        };
        Outcome::Changed(Next {
            from,
            to: Seat::Free,
            state: HoldState::Freed,
            order: self.order,
            attached_until: None,
            let_go: None,
        })
    }

    /// An order gives up a hold that it does not have, perhaps because its attach is still on the way.
    fn never(&self, order: OrderId) -> Outcome {
        let can_still_be_attached = matches!(self.state, HoldState::Held | HoldState::Attached);
        if can_still_be_attached && !self.let_go.contains(&order) {
            Outcome::LetGo(order)
        } else {
            Outcome::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn held(now: Timestamp) -> Hold {
        Hold {
            state: HoldState::Held,
            order: None,
            expires_at: now + MINUTE,
            attached_until: None,
            let_go: Vec::new(),
            places: Places::Unnumbered(2),
        }
    }

    /// The hold after a wish that is neither refused nor without effect.
    fn after(hold: &Hold, wish: Wish, now: Timestamp) -> Hold {
        let mut hold = hold.clone();
        match hold.decide(wish, now).unwrap() {
            Outcome::Changed(next) => {
                hold.state = next.state;
                hold.order = next.order;
                hold.attached_until = next.attached_until;
                hold.let_go.extend(next.let_go);
            }
            Outcome::LetGo(order) => hold.let_go.push(order),
            Outcome::Nothing => panic!("{wish:?} changes nothing in {hold:?}"),
        }
        hold
    }

    #[test]
    fn a_purchase_goes_from_held_to_sold_and_repeats_change_nothing() {
        let (now, order) = (Timestamp::now(), OrderId::new());
        let attach = Wish::Attach(order, now + MINUTE);
        let attached = after(&held(now), attach, now);
        assert_eq!(attached.attached_until, Some(now + MINUTE + ATTACHED_GRACE));
        assert_eq!(attached.decide(attach, now), Ok(Outcome::Nothing));

        let sold = after(&attached, Wish::Confirm(order), now);
        assert_eq!(sold.state, HoldState::Sold);
        for repeated in [attach, Wish::Confirm(order), Wish::Expire] {
            assert_eq!(sold.decide(repeated, now + MINUTE * 60), Ok(Outcome::Nothing), "{repeated:?}");
        }
        assert_eq!(sold.decide(Wish::Detach(order), now), Err(Refusal::Sold));

        let freed = after(&sold, Wish::Free(order), now);
        assert_eq!(freed.state, HoldState::Freed);
        assert_eq!(freed.decide(Wish::Free(order), now), Ok(Outcome::Nothing));
        assert_eq!(freed.decide(Wish::Confirm(order), now), Err(Refusal::Gone));
    }

    #[test]
    fn another_order_has_no_effect() {
        let (now, order, other) = (Timestamp::now(), OrderId::new(), OrderId::new());
        let attached = after(&held(now), Wish::Attach(order, now + MINUTE), now);
        let sold = after(&attached, Wish::Confirm(order), now);
        for hold in [attached, sold] {
            assert_eq!(hold.decide(Wish::Attach(other, now + MINUTE), now), Err(Refusal::Gone));
            assert_eq!(hold.decide(Wish::Confirm(other), now), Err(Refusal::Gone));
            for wish in [Wish::Detach(other), Wish::Free(other)] {
                assert!(!matches!(hold.decide(wish, now), Ok(Outcome::Changed(_))), "{wish:?}");
            }
        }
    }

    #[test]
    fn a_declined_order_gives_the_hold_back_until_its_old_expiry() {
        let (now, order) = (Timestamp::now(), OrderId::new());
        let attached = after(&held(now), Wish::Attach(order, now + MINUTE * 15), now);

        let again = after(&attached, Wish::Detach(order), now);
        assert_eq!((again.state, again.order), (HoldState::Held, None));
        assert_eq!(again.expires_at, now + MINUTE);

        let too_late = after(&attached, Wish::Detach(order), now + MINUTE);
        assert_eq!(too_late.state, HoldState::Freed);
    }

    #[test]
    fn an_order_that_let_go_never_gets_the_hold_again() {
        let (now, order, next) = (Timestamp::now(), OrderId::new(), OrderId::new());
        let attach = Wish::Attach(order, now + MINUTE);
        let detached = after(&after(&held(now), attach, now), Wish::Detach(order), now);
        let overtaken = after(&held(now), Wish::Free(order), now);
        for hold in [detached, overtaken] {
            assert_eq!(hold.decide(attach, now), Err(Refusal::Gone));
            assert_eq!(hold.decide(Wish::Free(order), now), Ok(Outcome::Nothing));
            assert_eq!(after(&hold, Wish::Attach(next, now + MINUTE), now).order, Some(next));
        }
    }

    #[test]
    fn time_ends_what_is_held_and_what_is_attached() {
        let (now, order) = (Timestamp::now(), OrderId::new());
        let hold = held(now);
        assert_eq!(hold.decide(Wish::Expire, now), Ok(Outcome::Nothing));
        assert_eq!(after(&hold, Wish::Expire, now + MINUTE).state, HoldState::Freed);
        let late = now + MINUTE;
        assert_eq!(hold.decide(Wish::Attach(order, late + MINUTE), late), Err(Refusal::Gone));

        let attached = after(&hold, Wish::Attach(order, now + MINUTE), now);
        let end = now + MINUTE + ATTACHED_GRACE;
        assert_eq!(
            attached.decide(Wish::Expire, now + MINUTE),
            Ok(Outcome::Nothing),
            "not with its hold time"
        );
        assert_eq!(after(&attached, Wish::Expire, end).state, HoldState::Freed);
        assert_eq!(
            after(&attached, Wish::Confirm(order), end).state,
            HoldState::Sold,
            "as long as nobody noticed"
        );
    }

    #[test]
    fn only_a_held_hold_can_be_released() {
        let (now, order) = (Timestamp::now(), OrderId::new());
        let released = after(&held(now), Wish::Release, now);
        assert_eq!(released.decide(Wish::Release, now), Ok(Outcome::Nothing));
        let attached = after(&held(now), Wish::Attach(order, now + MINUTE), now);
        assert_eq!(attached.decide(Wish::Release, now), Err(Refusal::Attached));
        assert_eq!(
            after(&attached, Wish::Confirm(order), now).decide(Wish::Release, now),
            Err(Refusal::Attached)
        );
    }

    #[test]
    fn an_order_past_its_time_gets_nothing() {
        let (now, order) = (Timestamp::now(), OrderId::new());
        assert_eq!(held(now).decide(Wish::Attach(order, now), now), Err(Refusal::Gone));
    }
}
