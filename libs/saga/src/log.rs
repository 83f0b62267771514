//! What was done so far, and what may be said about it.

use std::fmt::Debug;

/// How far a step or an undo is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It was begun, and its outcome is not known.
    Open,
    /// It has happened.
    Done,
    /// It has definitely not happened and will not: a decline, not a time-out.
    Refused,
}

/// One row of a saga's log. A step or an undo has at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry<S> {
    /// The step or undo.
    pub step: S,
    /// How far it is.
    pub state: State,
}

/// The wish of the saga's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Go on.
    Forward,
    /// Give up: the deadline passed, or somebody cancelled.
    Backward,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next<S> {
    /// Begin this step or undo: write its entry as [`State::Open`], carry it out, and ask again.
    Run(S),
    /// Nothing is to be begun before this one's outcome is known.
    Wait(S),
    /// All steps are done.
    Finished,
    /// Everything that was begun is undone.
    Failed,
}

/// A log this plan cannot have led to, or a wish that comes too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Inconsistent<S: Debug> {
    /// The pivot was begun and not refused: there is no way back. Where the wish and the pivot's entry are written
    /// under the same lock this cannot happen.
    #[error("the saga cannot be given up, because its pivot {0:?} was begun")]
    PastPivot(S),
    /// Behind the pivot there is nothing a refusal could lead to.
    #[error("{0:?} was refused, but it stands behind the pivot and has to succeed")]
    RefusedBehindPivot(S),
    /// An undo must not be refused.
    #[error("{0:?} was refused, but an undo has to succeed")]
    RefusedUndo(S),
    /// The entry of something that is in no step of the plan.
    #[error("{0:?} is not part of the plan")]
    Unknown(S),
    /// Two entries of the same step.
    #[error("{0:?} is in the log twice")]
    Twice(S),
    /// A step that was begun before the one in front of it was done.
    #[error("{0:?} was begun before the step in front of it was done")]
    OutOfOrder(S),
}
