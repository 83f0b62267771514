//! What a caller gets instead of an answer.

use std::time::Duration;

/// The circuit is open: the call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the circuit is open; come again in {} ms", retry_after.as_millis())]
pub struct Refused {
    /// When it is worth coming again: when the next probe is due; the shortest opening while other probes are on
    /// their way, the longest one when an operator holds the circuit open.
    pub retry_after: Duration,
}

/// Why a call through the layer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error<E> {
    /// The circuit is open: the inner service was not called.
    #[error(transparent)]
    Open(#[from] Refused),
    /// The error of the inner service.
    #[error(transparent)]
    Inner(E),
}
