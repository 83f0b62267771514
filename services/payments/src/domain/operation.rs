//! One step of an order at the payment provider.

use stampede_contracts::command::{PaymentAction, PaymentCommand};
use stampede_contracts::event::PaymentOutcome;
use stampede_contracts::{Money, OrderId, StepId};

/// The reference of a void that found nothing reserved: the authorisation was declined, refused, or never happens.
pub const NOTHING_TO_VOID: &str = "nothing_to_void";

/// A step whose outcome is not known yet, in the hands of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The step; its key at the provider.
    pub step: StepId,
    /// The order.
    pub order: OrderId,
    /// What to do.
    pub action: PaymentAction,
    /// How much.
    pub amount: Money,
    /// The authorise step that a capture, void or refund is about.
    pub authorisation: Option<StepId>,
    /// Whether a void has given this authorisation up.
    pub is_given_up: bool,
    /// How often it was worked on, this time included.
    pub attempts: u32,
    /// The trace it belongs to.
    pub traceparent: Option<String>,
}

impl Operation {
    /// Whether an earlier attempt may have reached the provider.
    pub const fn is_repeat(&self) -> bool {
        self.attempts > 1
    }
}

/// What the provider says about a key, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was done.
    Done {
        /// The provider's name for it.
        reference: String,
    },
    /// The card was declined.
    Declined {
        /// The provider's word.
        reason: String,
    },
    /// It will not be done.
    Refused {
        /// The provider's word.
        reason: String,
    },
    /// Nothing had come under the key, and nothing will.
    Cancelled,
}

impl Fate {
    /// The outcome to publish; `cancelled` is the reason where the key was cancelled.
    pub fn outcome(self, cancelled: &str) -> PaymentOutcome {
        match self {
            Self::Done { reference } => PaymentOutcome::Succeeded { reference },
            Self::Declined { reason } => PaymentOutcome::Declined { reason },
            Self::Refused { reason } => PaymentOutcome::Refused { reason },
            Self::Cancelled => PaymentOutcome::Refused { reason: cancelled.to_owned() },
        }
    }
}

/// What we know of an authorisation that another step is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorisation {
    /// Its command has not come.
    Absent,
    /// Its outcome is not known.
    Open,
    /// The amount is, or was, reserved.
    Authorised {
        /// The provider's name for it.
        reference: String,
    },
    /// It never was.
    Failed,
}

/// What we know of the capture of an authorisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Captured {
    /// Nothing was taken, and no capture is open.
    No,
    /// A capture is open.
    Open,
    /// The amount was taken.
    Yes {
        /// The provider's name for it.
        reference: String,
    },
}

/// A command that contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A capture, void or refund of nothing.
    #[error("{0} needs the authorise step it is about")]
    NoAuthorisation(&'static str),
    /// An authorise about another one.
    #[error("authorise is about no other step")]
    NeedlessAuthorisation,
    /// A step about itself.
    #[error("a step cannot be about itself")]
    AboutItself,
}

/// Names the rule that a command breaks.
///
/// # Errors
/// [`Invalid`]: nothing can be done with such a command, now or later.
pub fn check(command: &PaymentCommand) -> Result<(), Invalid> {
    match (command.action, command.authorisation) {
        (PaymentAction::Authorise, Some(_)) => Err(Invalid::NeedlessAuthorisation),
        (PaymentAction::Authorise, None) => Ok(()),
        (action, None) => Err(Invalid::NoAuthorisation(action.as_str())),
        (_, Some(authorisation)) if authorisation == command.step_id => Err(Invalid::AboutItself),
        (_, Some(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(action: PaymentAction, authorisation: Option<StepId>) -> PaymentCommand {
        PaymentCommand {
            step_id: StepId::new(),
            order_id: OrderId::new(),
            action,
            amount: Money::try_new(4_500, "EUR".parse().unwrap()).unwrap(),
            authorisation,
        }
    }

    #[test]
    fn only_authorise_is_about_no_other_step() {
        let other = Some(StepId::new());
        assert_eq!(check(&command(PaymentAction::Authorise, None)), Ok(()));
        assert_eq!(check(&command(PaymentAction::Authorise, other)), Err(Invalid::NeedlessAuthorisation));
        for action in [PaymentAction::Capture, PaymentAction::Void, PaymentAction::Refund] {
            assert_eq!(check(&command(action, other)), Ok(()));
            assert_eq!(check(&command(action, None)), Err(Invalid::NoAuthorisation(action.as_str())));
        }
        let mut narcissus = command(PaymentAction::Void, other);
        narcissus.authorisation = Some(narcissus.step_id);
        assert_eq!(check(&narcissus), Err(Invalid::AboutItself));
    }

    #[test]
    fn a_cancelled_key_is_a_refusal_with_our_reason() {
        let outcome = Fate::Cancelled.outcome("voided");
        assert_eq!(outcome, PaymentOutcome::Refused { reason: "voided".to_owned() });
    }
}
