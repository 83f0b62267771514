//! The future of a request with a deadline.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;

use crate::{Deadline, Malformed, Refusal, Within, within};

pin_project! {
    /// The answer of the handler, or of the refusal in its place.
    pub struct ResponseFuture<F, B> {
        #[pin]
        state: State<F>,
        respond: fn(Refusal) -> Response<B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Running { #[pin] handler: Within<F> },
        Refused { malformed: Malformed },
    }
}

impl<F: Future, B> ResponseFuture<F, B> {
    pub(crate) fn running(deadline: Deadline, handler: F, respond: fn(Refusal) -> Response<B>) -> Self {
        Self { state: State::Running { handler: within(deadline, handler) }, respond }
    }

    pub(crate) fn refused(malformed: Malformed, respond: fn(Refusal) -> Response<B>) -> Self {
        Self { state: State::Refused { malformed }, respond }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let refusal = match this.state.project() {
            StateProjection::Running { handler } => match ready!(handler.poll(cx)) {
                Ok(answer) => return Poll::Ready(answer),
                Err(_elapsed) => Refusal::Expired,
            },
            StateProjection::Refused { malformed } => Refusal::Malformed(*malformed),
        };
        Poll::Ready(Ok((this.respond)(refusal)))
    }
}

impl<F, B> fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
