//! The layer, and what tells good answers from bad ones.

use std::fmt;

use tower::Layer;

use crate::{CircuitBreaker, CircuitBreakerService, Outcome};

/// Says what an answer means for the health of the callee. Implemented by closures and functions.
pub trait Classify<Res, E> {
    /// A refusal for the caller's own fault (a 4xx) is [`Outcome::Success`] or [`Outcome::Neutral`], never a failure:
    /// the callee is well enough to see the fault.
    fn classify(&self, answer: &Result<Res, E>) -> Outcome;
}

impl<F, Res, E> Classify<Res, E> for F
where
    F: Fn(&Result<Res, E>) -> Outcome,
{
    fn classify(&self, answer: &Result<Res, E>) -> Outcome {
        self(answer)
    }
}

/// Puts a [`CircuitBreaker`] in front of a service. The state is the breaker's, however often the layer is applied.
#[derive(Clone)]
pub struct CircuitBreakerLayer<C> {
    breaker: CircuitBreaker,
    classify: C,
}

impl<C> CircuitBreakerLayer<C> {
    /// `classify` is cloned for every call: let it be a function, or a closure that holds no more than an `Arc`.
    pub fn new(breaker: CircuitBreaker, classify: C) -> Self {
        Self { breaker, classify }
    }
}

impl<S, C: Clone> Layer<S> for CircuitBreakerLayer<C> {
    type Service = CircuitBreakerService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreakerService::new(inner, self.breaker.clone(), self.classify.clone())
    }
}

impl<C> fmt::Debug for CircuitBreakerLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerLayer").field("breaker", &self.breaker).finish_non_exhaustive()
    }
}
