//! One step of an order's saga: a row.

use std::time::Duration;

use stampede_contracts::{StepId, Timestamp, command::MailKind, command::PaymentAction};

/// The pauses between retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// The first time. Doubled with each.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Pauses {
    /// The pause after this many failed attempts, from 1.
    pub(super) fn after(self, tries: usize) -> Duration {
        let doublings = u32::try_from(tries.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(2_u32.saturating_pow(doublings)).min(self.longest)
    }
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// Make the hold part of the order.
    Attach,
    /// Reserve the money.
    Authorise,
    /// Sell the seats.
    Confirm,
    /// Take the money: the pivot.
    Capture,
    /// Give the hold back to the session, after a decline.
    Detach,
    /// Release the seats, attached or sold.
    Free,
    /// Give the reservation back, or see to it that it never happens.
    Void,
    /// Give the money back.
    Refund,
    /// Send a mail.
    Notify(MailKind),
}

/// Who carries a step out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// `inventory`, by a call.
    Inventory,
    /// `payments`, by a command.
    Payments(PaymentAction),
    /// `notify`, by a command.
    Notify(MailKind),
}

impl StepKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Attach,
        Self::Authorise,
        Self::Confirm,
        Self::Capture,
        Self::Detach,
        Self::Free,
        Self::Void,
        Self::Refund,
        Self::Notify(MailKind::Tickets),
        Self::Notify(MailKind::Cancelled),
        Self::Notify(MailKind::Failed),
    ];

    /// The word in the database and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Authorise => "authorise",
            Self::Confirm => "confirm",
            Self::Capture => "capture",
            Self::Detach => "detach",
            Self::Free => "free",
            Self::Void => "void",
            Self::Refund => "refund",
            Self::Notify(MailKind::Tickets) => "notify_tickets",
            Self::Notify(MailKind::Cancelled) => "notify_cancelled",
            Self::Notify(MailKind::Failed) => "notify_failed",
        }
    }

    /// Who carries it out.
    pub const fn carrier(self) -> Carrier {
        match self {
            Self::Attach | Self::Confirm | Self::Detach | Self::Free => Carrier::Inventory,
            Self::Authorise => Carrier::Payments(PaymentAction::Authorise),
            Self::Capture => Carrier::Payments(PaymentAction::Capture),
            Self::Void => Carrier::Payments(PaymentAction::Void),
            Self::Refund => Carrier::Payments(PaymentAction::Refund),
            Self::Notify(kind) => Carrier::Notify(kind),
        }
    }

    /// Whether it reverses another step.
    pub const fn is_undo(self) -> bool {
        matches!(self, Self::Detach | Self::Free | Self::Void)
    }
}

impl std::str::FromStr for StepKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// Begun; the outcome is unknown, and it is sent again until it is known.
    Open,
    /// It happened.
    Done,
    /// It definitely did not happen and will not.
    Refused,
    /// Begun, the outcome unknown, and now undone by another step: nobody waits for it any more.
    GivenUp,
}

impl StepState {
    /// The word in the database and in the timeline.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::GivenUp => "given_up",
        }
    }
}

impl std::str::FromStr for StepState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Open, Self::Done, Self::Refused, Self::GivenUp]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(())
    }
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The step, at the same time the key under which it happens once.
    pub id: StepId,
    /// What it does.
    pub kind: StepKind,
    /// How far it is.
    pub state: StepState,
    /// Sendings after the first.
    pub attempt: u32,
    /// When it was last sent again.
    pub repeated_at: Option<Timestamp>,
    /// What came of it, for a person; after a refusal why.
    pub outcome: Option<String>,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When its outcome was recorded.
    pub done_at: Option<Timestamp>,
}

impl Step {
    /// A step that begins now.
    pub fn begin(id: StepId, kind: StepKind, now: Timestamp) -> Self {
        Self {
            id,
            kind,
            state: StepState::Open,
            attempt: 0,
            repeated_at: None,
            outcome: None,
            created_at: now,
            done_at: None,
        }
    }

    /// Whether its outcome is awaited.
    pub fn is_open(&self) -> bool {
        self.state == StepState::Open
    }
}

/// What came of a step. Definite: an unknown outcome is no outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It happened.
    Done {
        /// More, for a person.
        detail: Option<String>,
    },
    /// It will never happen.
    Refused {
        /// Why.
        reason: String,
    },
}
