//! The words of the pattern.

use std::time::Duration;

use crate::Counts;

/// A circuit as an electrician speaks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Current flows: calls are made.
    Closed,
    /// Calls are refused.
    Open,
    /// A few calls are made to see whether the callee is well again; the others are refused.
    HalfOpen,
}

/// What an operator may demand, whatever the calls say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forced {
    /// Every call is refused.
    Open,
    /// Every call is made and none is counted.
    Closed,
}

/// What a call says about the health of the callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The callee is well.
    Success,
    /// The callee is not: it did not answer, or said that it could not.
    Failure,
    /// An answer that shows only that the callee does not hang: the request was wrong, for example. It is not counted.
    Neutral,
    /// The caller left before there was an answer, or its time was over. Not counted either, but a failure while the callee
    /// hangs, as defined by the policy ([`Policy::hangs_after`](crate::Policy::hangs_after)).
    Unanswered,
}

/// Why a circuit changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// As many calls failed as the policy allows; these.
    Failures(Counts),
    /// It was open for as long as it had to be.
    TimeToProbe,
    /// A probe failed.
    ProbeFailed,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// An operator demanded it.
    Forced,
    /// An operator no longer demands the opposite.
    Released,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// The state before.
    pub from: State,
    /// The state since.
    pub to: State,
    /// What brought it about.
    pub why: Why,
    /// The generation of the state since.
    pub generation: u64,
}

/// What a metric or an operator's page shows of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Whether calls are made. An open circuit whose time is over stays open until the next call comes.
    pub state: State,
    /// How often the counting began anew.
    pub generation: u64,
    /// What an operator demands.
    pub forced: Option<Forced>,
    /// What was counted in the window, or the failures in a row; nothing unless the circuit is closed.
    pub counts: Counts,
    /// Probes that are on their way.
    pub probes: u32,
    /// How often the circuit opened since it was made, by itself or by force.
    pub opened: u64,
    /// What a call made now would be told; `None` if it would not be refused.
    pub retry_after: Option<Duration>,
}
