//! What the service answers instead of a response.

use crate::Shed;

/// The request was shed, or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error<E> {
    /// There is too much to do; the inner service was not called.
    #[error(transparent)]
    Shed(Shed),
    /// The inner service's own error.
    #[error(transparent)]
    Inner(E),
}
