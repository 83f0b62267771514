//! One attempt beside the first.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

pin_project! {
    /// Waits until its own clone of the service is ready, and calls it. Tower's `Oneshot` does the same, but does not
    /// tell a service that is not fit to be called from a call that failed.
    #[project = AttemptProjection]
    pub(crate) enum Attempt<S, Req>
    where
        S: Service<Req>,
    {
        Waits { service: S, request: Option<Req> },
        Called { #[pin] answer: S::Future },
    }
}

/// The service was never ready: it broke before it could be called.
pub(crate) struct NeverReady;

impl<S: Service<Req>, Req> Attempt<S, Req> {
    pub fn new(service: S, request: Req) -> Self {
        Self::Waits { service, request: Some(request) }
    }
}

impl<S: Service<Req>, Req> Future for Attempt<S, Req> {
    type Output = Result<Result<S::Response, S::Error>, NeverReady>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match self.as_mut().project() {
                AttemptProjection::Called { answer } => return answer.poll(cx).map(Ok),
                AttemptProjection::Waits { service, request } => {
                    let ready = ready!(service.poll_ready(cx)).is_ok();
                    let Some(request) = request.take().filter(|_| ready) else {
                        return Poll::Ready(Err(NeverReady));
                    };
                    let answer = service.call(request);
                    self.set(Self::Called { answer });
                }
            }
        }
    }
}
