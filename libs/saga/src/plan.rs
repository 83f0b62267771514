//! The steps of a saga, and the one function that follows them.

use std::fmt::Debug;

use crate::{Direction, Entry, Inconsistent, Next, State};

/// A step with its place in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StepPlan<S> {
    /// The step.
    pub step: S,
    /// What reverses it, or keeps it from happening. None for a step without an effect of its own, or one that the
    /// undo of an earlier step covers.
    pub undo: Option<S>,
    /// Whether beginning this step decides that the saga will be finished.
    pub pivot: bool,
}

impl<S> StepPlan<S> {
    /// A step without an undo.
    pub fn new(step: S) -> Self {
        Self { step, undo: None, pivot: false }
    }

    /// The pivot.
    pub fn pivot(step: S) -> Self {
        Self { step, undo: None, pivot: true }
    }

    /// The same step with an undo.
    #[must_use]
    pub fn undone_by(mut self, undo: S) -> Self {
        self.undo = Some(undo);
        self
    }
}

/// A plan that cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum InvalidPlan<S: Debug> {
    /// Without a pivot nobody can say until when giving up is allowed.
    #[error("a plan needs exactly one pivot")]
    NotOnePivot,
    /// The log could not tell the two apart.
    #[error("{0:?} is in the plan twice")]
    Twice(S),
    /// It would never run.
    #[error("{0:?} undoes a step at or behind the pivot, where nothing is undone")]
    UndoBehindPivot(S),
}

/// The ordered steps of a saga. Cheap to make and to share; the log lives elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<S> {
    steps: Vec<StepPlan<S>>,
    pivot: usize,
}

impl<S: Clone + PartialEq + Debug> Plan<S> {
    /// A plan of these steps, in this order.
    ///
    /// # Errors
    /// [`InvalidPlan`] names the rule that was broken.
    pub fn try_new(steps: Vec<StepPlan<S>>) -> Result<Self, InvalidPlan<S>> {
        let mut pivots = steps.iter().enumerate().filter(|(_, step)| step.pivot).map(|(index, _)| index);
        let (Some(pivot), None) = (pivots.next(), pivots.next()) else {
            return Err(InvalidPlan::NotOnePivot);
        };
        if let Some(undo) = steps.iter().skip(pivot).find_map(|step| step.undo.clone()) {
            return Err(InvalidPlan::UndoBehindPivot(undo));
        }
        let mut seen: Vec<&S> = Vec::new();
        for name in steps.iter().flat_map(|step| std::iter::once(&step.step).chain(&step.undo)) {
            if seen.contains(&name) {
                return Err(InvalidPlan::Twice(name.clone()));
            }
            seen.push(name);
        }
        Ok(Self { steps, pivot })
    }

    /// What to do now, given what was done and what is wished.
    ///
    /// Ask again after every [`Next::Run`], and whenever an entry changes.
    ///
    /// # Errors
    /// [`Inconsistent`] when the log cannot come from this plan, or giving up comes too late.
    pub fn next(&self, log: &[Entry<S>], wish: Direction) -> Result<Next<S>, Inconsistent<S>> {
        self.check(log)?;
        let turned = self.has_turned(log);
        if wish == Direction::Forward && !turned {
            return Ok(self.forward(log));
        }
        let pivot = &self.steps[self.pivot].step;
        match state(log, pivot) {
            Some(State::Open | State::Done) => Err(Inconsistent::PastPivot(pivot.clone())),
            Some(State::Refused) | None => Ok(self.backward(log)),
        }
    }

    /// The first step that is not done.
    fn forward(&self, log: &[Entry<S>]) -> Next<S> {
        for StepPlan { step, .. } in &self.steps {
            match state(log, step) {
                None => return Next::Run(step.clone()),
                Some(State::Open | State::Refused) => return Next::Wait(step.clone()),
                Some(State::Done) => {}
            }
        }
        Next::Finished
    }

    /// The last undo that is due and was not begun; when there is none, the last that is not done.
    fn backward(&self, log: &[Entry<S>]) -> Next<S> {
        let mut open = None;
        for StepPlan { step, undo, .. } in self.steps.iter().rev() {
            let Some(undo) = undo else { continue };
            match (state(log, step), state(log, undo)) {
                (Some(State::Open | State::Done), None) => return Next::Run(undo.clone()),
                (_, Some(State::Open)) => open = open.or(Some(undo)),
                _ => {}
            }
        }
        open.map_or(Next::Failed, |undo| Next::Wait(undo.clone()))
    }

    /// Whether the log itself leads backward: a step was refused, or an undo was begun.
    fn has_turned(&self, log: &[Entry<S>]) -> bool {
        log.iter().any(|entry| entry.state == State::Refused || self.is_undo(&entry.step))
    }

    fn is_undo(&self, name: &S) -> bool {
        self.steps.iter().any(|step| step.undo.as_ref() == Some(name))
    }

    fn check(&self, log: &[Entry<S>]) -> Result<(), Inconsistent<S>> {
        for (index, entry) in log.iter().enumerate() {
            let name = || entry.step.clone();
            if log[..index].iter().any(|earlier| earlier.step == entry.step) {
                return Err(Inconsistent::Twice(name()));
            }
            let place = self.steps.iter().position(|step| step.step == entry.step);
            match place {
                None if !self.is_undo(&entry.step) => return Err(Inconsistent::Unknown(name())),
                None if entry.state == State::Refused => return Err(Inconsistent::RefusedUndo(name())),
                None => {}
                Some(place) if place > self.pivot && entry.state == State::Refused => {
                    return Err(Inconsistent::RefusedBehindPivot(name()));
                }
                Some(0) => {}
                Some(place) if state(log, &self.steps[place - 1].step) != Some(State::Done) => {
                    return Err(Inconsistent::OutOfOrder(name()));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

fn state<S: PartialEq>(log: &[Entry<S>], step: &S) -> Option<State> {
    log.iter().find(|entry| entry.step == *step).map(|entry| entry.state)
}
