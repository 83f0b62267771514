//! Why a call through a stack failed.

use std::time::Duration;

use stampede_bulkhead as bulkhead;
use stampede_circuit_breaker as breaker;
use stampede_deadline::TimedOut;

use crate::meaning::Guarded;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error<E> {
    /// The circuit is open: the callee was not called. Come again after this time.
    #[error("the circuit is open; come again in {} ms", .0.as_millis())]
    Open(Duration),
    /// Too many calls of ours are under way: the callee was not called.
    #[error("{0}")]
    Crowded(bulkhead::Refused),
    /// There was no answer in time, and nobody knows whether the call had an effect.
    #[error("there was no answer in time")]
    TimedOut,
    /// The callee's own.
    #[error("{0}")]
    Inner(#[source] E),
}

impl<E> From<TimedOut<Guarded<E>>> for Error<E> {
    fn from(error: TimedOut<Guarded<E>>) -> Self {
        match error {
            TimedOut::Elapsed => Self::TimedOut,
            TimedOut::Inner(breaker::Error::Open(refused)) => Self::Open(refused.retry_after),
            TimedOut::Inner(breaker::Error::Inner(bulkhead::Error::Refused(refused))) => {
                Self::Crowded(refused)
            }
            TimedOut::Inner(breaker::Error::Inner(bulkhead::Error::Inner(TimedOut::Elapsed))) => {
                Self::TimedOut
            }
            TimedOut::Inner(breaker::Error::Inner(bulkhead::Error::Inner(TimedOut::Inner(error)))) => {
                Self::Inner(error)
            }
        }
    }
}
