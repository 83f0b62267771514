//! What an order does next. The order of the steps and of their undos is in three plans; this file presses the
//! buttons: it knows when to give up, which plan applies, and when an order has come to rest.
//!
//! ```text
//! pending ── attach → authorise → confirm → CAPTURE ──────────────→ confirmed
//!    │            │                             │                       │
//!    │            └ declined: detach → declined └ refused ┐             │ cancelled by the buyer
//!    ├ decide_by missed, seats lost ──────────────────────┴ failing: void, free → failed
//!    └ cancelled by the buyer before the pivot ───────────── cancelling: void, free → cancelled
//!                                            after it ────── cancelling: free → refund → cancelled
//!                                                                                └ refused: again after a pause
//! ```

use stampede_contracts::{StepId, Timestamp, api::OrderState, command::MailKind};
use stampede_saga::{Direction, Entry, Inconsistent, InvalidPlan, Next, Plan, State, StepPlan};

use super::{Order, Outcome, Pauses, Step, StepKind, StepState};

use StepKind::{Attach, Authorise, Capture, Confirm, Detach, Free, Notify, Refund, Void};

/// The three ways an order can go.
#[derive(Debug, Clone)]
pub struct Plans {
    /// From the hold to the money, and back.
    purchase: Plan<StepKind>,
    /// Back after a decline: the hold is held again, so that another card can be tried.
    decline: Plan<StepKind>,
    /// After the money was taken there is no way back, only another way forward.
    refund: Plan<StepKind>,
    pauses: Pauses,
}

/// What recording an outcome changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// The outcome is new.
    New,
    /// The step has an outcome, or nobody waits for it any more. Nothing changes.
    Known,
    /// The order has no such step.
    NoSuchStep,
}

/// From one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: OrderState,
    /// After.
    pub to: OrderState,
}

/// What followed from a change: to be written in the same transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Advance {
    /// Steps that were begun: to be carried out after the commit.
    pub begun: Vec<Step>,
    /// States the order went through.
    pub transitions: Vec<Transition>,
}

impl Advance {
    /// Whether the order came to this state.
    pub fn reached(&self, state: OrderState) -> bool {
        self.transitions.iter().any(|transition| transition.to == state)
    }
}

enum Move {
    Begin(StepKind),
    Become(OrderState),
    Rest,
}

impl Plans {
    /// Creates the plans. A refund that was refused is retried after one of the `pauses`: the provider's reason may have been
    /// temporary, such as a short balance or the missing consent of an operator.
    ///
    /// # Errors
    /// When a plan contradicts itself; a test says that none does.
    pub fn try_new(pauses: Pauses) -> Result<Self, InvalidPlan<StepKind>> {
        Ok(Self {
            purchase: Plan::try_new(vec![
                StepPlan::new(Attach).undone_by(Free),
                StepPlan::new(Authorise).undone_by(Void),
                // Sold seats are released by the same `free` as attached ones.
                StepPlan::new(Confirm),
                StepPlan::pivot(Capture),
            ])?,
            decline: Plan::try_new(vec![
                StepPlan::new(Attach).undone_by(Detach),
                StepPlan::new(Authorise),
                StepPlan::new(Confirm),
                StepPlan::pivot(Capture),
            ])?,
            refund: Plan::try_new(vec![StepPlan::pivot(Free), StepPlan::new(Refund)])?,
            pauses,
        })
    }

    /// Moves the order as far as it can go without knowing more.
    ///
    /// # Errors
    /// When its steps cannot have come from the plans. Nothing may be written then.
    pub fn advance(
        &self,
        order: &mut Order,
        now: Timestamp,
        mut new_id: impl FnMut() -> StepId,
    ) -> Result<Advance, Inconsistent<StepKind>> {
        let mut advance = Advance::default();
        loop {
            let begin = match self.next(order, now)? {
                Move::Rest => return Ok(advance),
                Move::Begin(kind) => Some(kind),
                Move::Become(state) => {
                    advance.transitions.push(Transition { from: order.state, to: state });
                    order.enter(state, now)
                }
            };
            if let Some(kind) = begin {
                let step = Step::begin(new_id(), kind, now);
                order.steps.push(step.clone());
                advance.begun.push(step);
            }
        }
    }

    fn next(&self, order: &Order, now: Timestamp) -> Result<Move, Inconsistent<StepKind>> {
        match order.state {
            OrderState::Pending if order.step_state(Authorise) == Some(StepState::Refused) => {
                self.next_of_declined(order)
            }
            OrderState::Pending => self.next_of_pending(order, now),
            OrderState::Failing => self.undo(order, OrderState::Failed),
            OrderState::Cancelling if order.is_captured() => self.next_of_refund(order, now),
            OrderState::Cancelling => self.undo(order, OrderState::Cancelled),
            // At rest, with one way out.
            OrderState::Confirmed if order.cancel_requested_at.is_some() => {
                Ok(Move::Become(OrderState::Cancelling))
            }
            OrderState::Confirmed | OrderState::Declined | OrderState::Failed | OrderState::Cancelled => {
                Ok(Move::Rest)
            }
        }
    }

    fn next_of_pending(&self, order: &Order, now: Timestamp) -> Result<Move, Inconsistent<StepKind>> {
        let cancelled = order.cancel_requested_at.is_some();
        if !order.is_past_pivot() {
            if cancelled {
                return Ok(Move::Become(OrderState::Cancelling));
            }
            if now >= order.decide_by && order.step_state(Attach) != Some(StepState::Refused) {
                return Ok(Move::Become(OrderState::Failing));
            }
        }
        Ok(match self.purchase.next(&log(order, &PURCHASE), Direction::Forward)? {
            // Seats lost or capture refused: the plan has turned around.
            Next::Run(undo) if undo.is_undo() => Move::Become(OrderState::Failing),
            Next::Run(step) => Move::Begin(step),
            Next::Wait(_) => Move::Rest,
            Next::Finished if cancelled => Move::Become(OrderState::Cancelling),
            Next::Finished => Move::Become(OrderState::Confirmed),
            // The hold was gone before anything began.
            Next::Failed => Move::Become(OrderState::Failed),
        })
    }

    fn next_of_declined(&self, order: &Order) -> Result<Move, Inconsistent<StepKind>> {
        Ok(match self.decline.next(&log(order, &DECLINE), Direction::Backward)? {
            Next::Run(undo) => Move::Begin(undo),
            Next::Wait(_) => Move::Rest,
            Next::Failed | Next::Finished => Move::Become(OrderState::Declined),
        })
    }

    fn undo(&self, order: &Order, end: OrderState) -> Result<Move, Inconsistent<StepKind>> {
        Ok(match self.purchase.next(&log(order, &PURCHASE), Direction::Backward)? {
            Next::Run(undo) => Move::Begin(undo),
            Next::Wait(_) => Move::Rest,
            Next::Failed | Next::Finished => Move::Become(end),
        })
    }

    /// When the refund that the provider refused last is asked for again; none if that is not how it stands. The money
    /// is owed, so the order does not come to rest before it was given back.
    pub fn refund_again_at(&self, order: &Order) -> Option<Timestamp> {
        let refused = order.step(Refund).filter(|step| step.state == StepState::Refused)?;
        let refusals = order.steps.iter().filter(|step| step.kind == Refund).count();
        Some(refused.done_at? + self.pauses.after(refusals))
    }

    fn next_of_refund(&self, order: &Order, now: Timestamp) -> Result<Move, Inconsistent<StepKind>> {
        if let Some(again_at) = self.refund_again_at(order) {
            return Ok(if again_at <= now { Move::Begin(Refund) } else { Move::Rest });
        }
        Ok(match self.refund.next(&log(order, &REFUND), Direction::Forward)? {
            Next::Run(step) => Move::Begin(step),
            Next::Wait(_) => Move::Rest,
            Next::Finished | Next::Failed => Move::Become(OrderState::Cancelled),
        })
    }
}

const PURCHASE: [StepKind; 6] = [Attach, Authorise, Confirm, Capture, Free, Void];
const DECLINE: [StepKind; 5] = [Attach, Authorise, Confirm, Capture, Detach];
const REFUND: [StepKind; 2] = [Free, Refund];

/// The rows as the plan reads them.
fn log(order: &Order, kinds: &[StepKind]) -> Vec<Entry<StepKind>> {
    let of_plan = kinds.iter().filter_map(|kind| order.step(*kind));
    of_plan
        .map(|step| {
            let state = match step.state {
                // Unknown is unknown, whether somebody still waits for it or not.
                StepState::Open | StepState::GivenUp => State::Open,
                // There was nothing to undo: the hold had ended, the authorisation never came to be.
                StepState::Refused if step.kind.is_undo() => State::Done,
                StepState::Refused => State::Refused,
                StepState::Done => State::Done,
            };
            Entry { step: step.kind, state }
        })
        .collect()
}

impl Order {
    /// Records what came of a step. Only the first outcome counts; for a mail a later success does too, because an
    /// operator may have sent it again after it was given up.
    pub fn record(&mut self, id: StepId, outcome: Outcome, now: Timestamp) -> Recorded {
        let Some(index) = self.steps.iter().position(|step| step.id == id) else {
            return Recorded::NoSuchStep;
        };
        let step = &self.steps[index];
        let is_mail_after_all = matches!(step.kind, Notify(_))
            && step.state != StepState::Done
            && matches!(outcome, Outcome::Done { .. });
        if !step.is_open() && !is_mail_after_all {
            return Recorded::Known;
        }
        let outcome = match outcome {
            Outcome::Done { detail } if step.state == StepState::Refused => after_all(detail, step.done_at),
            outcome => outcome,
        };
        self.set_outcome(index, outcome, now);
        Recorded::New
    }

    /// Notes that the buyer wants to cancel. What follows is decided by [`Plans::advance`].
    pub fn request_cancel(&mut self, now: Timestamp) {
        self.cancel_requested_at.get_or_insert(now);
    }

    /// Enters a state; gives the mail that goes with it.
    fn enter(&mut self, state: OrderState, now: Timestamp) -> Option<StepKind> {
        self.state = state;
        self.settled_at = state.is_settled().then_some(now);
        if matches!(state, OrderState::Failing | OrderState::Cancelling) {
            self.give_up_open_steps(now);
        }
        let was_promised = self.replied == Some(202) && self.facts.is_some();
        match state {
            OrderState::Confirmed => Some(Notify(MailKind::Tickets)),
            OrderState::Cancelled if self.is_captured() => Some(Notify(MailKind::Cancelled)),
            OrderState::Failed | OrderState::Declined if was_promised => Some(Notify(MailKind::Failed)),
            _ => None,
        }
    }

    /// Their undos settle them: `void` refuses an authorisation that comes later, `free` an attach. A mail with tickets
    /// is not sent by `notify` once they are revoked.
    fn give_up_open_steps(&mut self, now: Timestamp) {
        let open = self.steps.iter_mut().filter(|step| step.is_open());
        let undone = |kind| matches!(kind, Attach | Authorise | Confirm | Notify(MailKind::Tickets));
        for step in open.filter(|step| undone(step.kind)) {
            step.state = StepState::GivenUp;
            step.done_at = Some(now);
        }
    }
}

/// The row has room for one outcome, and the buyer may have read the first one: the second tells both.
fn after_all(detail: Option<String>, given_up_at: Option<Timestamp>) -> Outcome {
    let detail = detail.unwrap_or_else(|| "sent".to_owned());
    let at = given_up_at.map(|at| format!(" at {at}")).unwrap_or_default();
    Outcome::Done {
        detail: Some(format!("{detail}, when an operator sent it again; it had been given up{at}")),
    }
}

#[cfg(test)]
mod tests;
