//! The deadline of an HTTP service, checked once and applied to every request.

use std::fmt;
use std::time::Duration;

use http::{Response, StatusCode};
use tower::Layer;

use crate::{DeadlineService, MAX, Malformed};

/// Why a request got no answer from its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The header could not be read; the handler did not run.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The deadline passed on the way to the answer; the handler was dropped.
    #[error("the deadline passed before there was an answer")]
    Expired,
}

impl Refusal {
    /// 400 or 504.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Expired => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// Limits that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimits {
    /// No request could ever be served.
    #[error("the default deadline must be at least one millisecond")]
    DefaultTooShort,
    /// Who says nothing would get more than who asks.
    #[error("the default deadline must not be longer than the maximum")]
    DefaultAboveMax,
    /// The header could not carry it.
    #[error("the maximum deadline must not be longer than ten minutes")]
    MaxTooLong,
}

/// Gives every request a deadline: what [`HEADER`](crate::HEADER) says, shortened to the maximum, or the default.
///
/// The handler runs in that [`scope`](crate::scope) and is dropped when it ends. What is answered then is built by
/// the function given here, so that this crate knows nothing of the shape of errors.
pub struct DeadlineLayer<B> {
    pub(crate) default: Duration,
    pub(crate) min: Duration,
    pub(crate) max: Duration,
    pub(crate) respond: fn(Refusal) -> Response<B>,
}

impl<B> DeadlineLayer<B> {
    /// `default` is for requests without the header, `max` for those that ask for more; `respond` answers instead of
    /// the handler.
    ///
    /// # Errors
    /// [`InvalidLimits`] unless 1 ms ≤ `default` ≤ `max` ≤ 10 minutes.
    pub fn try_new(
        default: Duration,
        max: Duration,
        respond: fn(Refusal) -> Response<B>,
    ) -> Result<Self, InvalidLimits> {
        if default < Duration::from_millis(1) {
            Err(InvalidLimits::DefaultTooShort)
        } else if max > MAX {
            Err(InvalidLimits::MaxTooLong)
        } else if default > max {
            Err(InvalidLimits::DefaultAboveMax)
        } else {
            Ok(Self { default, min: Duration::ZERO, max, respond })
        }
    }

    /// Lengthens shorter deadlines to `min`, as longer ones are shortened to the maximum: a client that leaves no time
    /// for a response costs work and gets a 504. The maximum takes precedence.
    #[must_use]
    pub fn at_least(mut self, min: Duration) -> Self {
        self.min = min.min(self.max);
        self
    }
}

impl<S, B> Layer<S> for DeadlineLayer<B> {
    type Service = DeadlineService<S, B>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService::new(inner, *self)
    }
}

// Derived, these would ask for `B: Clone` and `B: Debug`, which no response body is.
impl<B> Clone for DeadlineLayer<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for DeadlineLayer<B> {}

impl<B> fmt::Debug for DeadlineLayer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineLayer")
            .field("default", &self.default)
            .field("min", &self.min)
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        let layer = |default, max| {
            DeadlineLayer::<()>::try_new(Duration::from_millis(default), Duration::from_millis(max), |_| {
                Response::new(())
            })
            .map(|layer| (layer.default, layer.max))
        };
        assert!(layer(1, 1).is_ok());
        assert!(layer(1, 600_000).is_ok());
        assert_eq!(layer(0, 1), Err(InvalidLimits::DefaultTooShort));
        assert_eq!(layer(2, 1), Err(InvalidLimits::DefaultAboveMax));
        assert_eq!(layer(1, 600_001), Err(InvalidLimits::MaxTooLong));
    }
}
