//! The future of a call.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::{Classify, Error, Permit, Refused};

pin_project! {
    /// The answer of the inner service, or the refusal in its place.
    pub struct ResponseFuture<F, C> {
        #[pin]
        state: State<F, C>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, C> {
        Running { #[pin] answer: F, permit: Permit, classify: C },
        Refused { refused: Refused },
    }
}

impl<F, C> ResponseFuture<F, C> {
    pub(crate) fn running(answer: F, permit: Permit, classify: C) -> Self {
        Self { state: State::Running { answer, permit, classify } }
    }

    /// Leaves a mark in the trace.
    #[cold]
    pub(crate) fn refused(refused: Refused) -> Self {
        let retry_after_s = refused.retry_after.as_secs_f64();
        drop(tracing::info_span!("circuit open", retry_after_s, otel.status_code = "ERROR"));
        Self { state: State::Refused { refused } }
    }
}

impl<F, C, Res, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<Res, E>>,
    C: Classify<Res, E>,
{
    type Output = Result<Res, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Refused { refused } => Poll::Ready(Err(Error::Open(*refused))),
            StateProjection::Running { answer, permit, classify } => {
                let Poll::Ready(answer) = permit.guard(|| answer.poll(cx)) else {
                    permit.waits();
                    return Poll::Pending;
                };
                permit.settle(classify.classify(&answer));
                Poll::Ready(answer.map_err(Error::Inner))
            }
        }
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
