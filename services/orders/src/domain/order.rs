//! An order: a row and its steps.

use std::fmt;

use stampede_contracts::{
    HoldId, Money, OrderId, SessionId, ShowId, StepId, Timestamp,
    api::OrderState,
    inventory::{HoldView, SeatLabel, ShowFacts},
};

use super::{Outcome, Step, StepKind, StepState};

/// An order, as far as its saga needs to know it. Name, address and card token stay in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The order.
    pub id: OrderId,
    /// Whose.
    pub session: SessionId,
    /// Its state.
    pub state: OrderState,
    /// The hold it buys.
    pub hold_id: HoldId,
    /// What the hold said when it was attached.
    pub facts: Option<Facts>,
    /// Reads and cancels the order without its session.
    pub secret: OrderSecret,
    /// When it was placed.
    pub created_at: Timestamp,
    /// The pivot has to be reached before this.
    pub decide_by: Timestamp,
    /// When the buyer asked to cancel it.
    pub cancel_requested_at: Option<Timestamp>,
    /// When it came to rest.
    pub settled_at: Option<Timestamp>,
    /// The trace of the request that placed it.
    pub traceparent: Option<String>,
    /// The status of the stored answer, once there is one.
    pub replied: Option<u16>,
    /// Every step so far, oldest first.
    pub steps: Vec<Step>,
}

/// What an order copies from its hold, so that it never has to ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The show's id.
    pub show_id: ShowId,
    /// The show.
    pub show: ShowFacts,
    /// The price of all seats.
    pub total: Money,
    /// How many.
    pub quantity: u32,
    /// One label a seat or place.
    pub seats: Vec<SeatLabel>,
}

impl From<HoldView> for Facts {
    fn from(hold: HoldView) -> Self {
        Self {
            show_id: hold.show_id,
            show: hold.show,
            total: hold.total,
            quantity: hold.quantity,
            seats: hold.seats,
        }
    }
}

/// Whoever has it may read and cancel the order.
#[derive(Clone, PartialEq, Eq)]
pub struct OrderSecret(String);

impl OrderSecret {
    /// The secret of 32 random bytes.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// A stored secret.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The text for the reply, the mail and the database.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in a time that does not depend on where the first difference is.
    pub fn matches(&self, given: &str) -> bool {
        let (ours, given) = (self.0.as_bytes(), given.as_bytes());
        let differences = ours.iter().zip(given).fold(0, |seen, (a, b)| seen | (a ^ b));
        ours.len() == given.len() && differences == 0
    }
}

impl fmt::Debug for OrderSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OrderSecret(…)")
    }
}

impl Order {
    /// The step of this kind, if it was begun; of refunds the last, because one that was refused is asked for again.
    pub fn step(&self, kind: StepKind) -> Option<&Step> {
        self.steps.iter().rfind(|step| step.kind == kind)
    }

    /// The step with this id.
    pub fn step_by_id(&self, id: StepId) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == id)
    }

    /// The state of the step of this kind, if it was begun.
    pub fn step_state(&self, kind: StepKind) -> Option<StepState> {
        self.step(kind).map(|step| step.state)
    }

    /// Whether the decision to sell was made: from then on nobody gives up any more.
    pub fn is_past_pivot(&self) -> bool {
        self.step(StepKind::Capture).is_some()
    }

    /// Whether money was taken.
    pub fn is_captured(&self) -> bool {
        self.step_state(StepKind::Capture) == Some(StepState::Done)
    }

    /// Whether the card token has no use any more: the authorisation has an outcome, or nobody waits for one.
    pub fn card_is_spent(&self) -> bool {
        let authorise = self.step_state(StepKind::Authorise);
        self.state != OrderState::Pending || authorise.is_some_and(|state| state != StepState::Open)
    }

    /// The trace id in [`traceparent`](Self::traceparent).
    pub fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_deref().and_then(|text| text.split('-').nth(1))
    }

    /// Keeps what came of a step. The first outcome counts; see [`Recorded`](super::Recorded).
    pub(super) fn set_outcome(&mut self, index: usize, outcome: Outcome, now: Timestamp) {
        let step = &mut self.steps[index];
        (step.state, step.outcome) = match outcome {
            Outcome::Done { detail } => (StepState::Done, detail),
            Outcome::Refused { reason } => (StepState::Refused, Some(reason)),
        };
        step.done_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_itself_only() {
        let secret = OrderSecret::from_random([7; 32]);
        assert!(secret.matches(secret.expose()));
        for other in ["", "07", &"07".repeat(33), &"08".repeat(32)] {
            assert!(!secret.matches(other), "{other}");
        }
        assert!(!format!("{secret:?}").contains("07"));
    }
}
