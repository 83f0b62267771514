//! Why a call did not get through.

/// There was no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// All places are taken, and so many wait for one already.
    #[error("all places are taken and the queue is full")]
    Full,
    /// No place became free within the longest wait.
    #[error("no place became free in time")]
    TimedOut,
}

/// What [`BulkheadService`](crate::BulkheadService) fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error<E> {
    /// There was no place; the inner service has seen nothing.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The inner service's own.
    #[error("{0}")]
    Inner(#[source] E),
}
