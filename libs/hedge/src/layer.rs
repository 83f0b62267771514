//! The layer, and what an answer means for the attempts that still run.

use std::fmt;

use tower::Layer;

use crate::{Hedge, HedgeService};

/// What an answer means for its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// This is the answer.
    Done,
    /// Another attempt may do better: the next one is made at once. This is the answer if none does.
    Another,
    /// An attempt made now would not do better: there is no further one. This is the answer if none that still runs
    /// does.
    Fatal,
    /// The attempt was never made, or was not given the time: there is no further one, and this is the answer only if
    /// no other attempt has any.
    Refused,
}

/// Says what an answer means. Implemented by closures and functions.
pub trait Classify<Res, E> {
    /// Called once for every attempt that answers.
    fn classify(&self, answer: &Result<Res, E>) -> Verdict;
}

impl<F, Res, E> Classify<Res, E> for F
where
    F: Fn(&Result<Res, E>) -> Verdict,
{
    fn classify(&self, answer: &Result<Res, E>) -> Verdict {
        self(answer)
    }
}

/// Makes a second attempt where the first one is slow. The state is the [`Hedge`]'s, however often the layer is applied.
#[derive(Clone)]
pub struct HedgeLayer<C> {
    hedge: Hedge,
    classify: C,
}

impl<C> HedgeLayer<C> {
    /// `classify` is cloned for every call: let it be a function, or a closure that holds no more than an `Arc`.
    pub fn new(hedge: Hedge, classify: C) -> Self {
        Self { hedge, classify }
    }
}

impl<S, C: Clone> Layer<S> for HedgeLayer<C> {
    type Service = HedgeService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        HedgeService::new(inner, self.hedge.clone(), self.classify.clone())
    }
}

impl<C> fmt::Debug for HedgeLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeLayer").field("hedge", &self.hedge).finish_non_exhaustive()
    }
}
