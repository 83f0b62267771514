//! The future of a call.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{Acquire, Classify, Error, Permit, Shed};

pin_project! {
    /// Waits for a slot where there is none, calls, and says what the result means for the load.
    pub struct ResponseFuture<S, R, C>
    where
        S: Service<R>,
    {
        #[pin]
        state: State<S, R, S::Future>,
        classify: C,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, R, F> {
        Waiting { acquire: Acquire, call: Option<(S, R)> },
        Running { permit: Option<Permit>, #[pin] response: F },
        Refused { shed: Shed },
    }
}

impl<S: Service<R>, R, C> ResponseFuture<S, R, C> {
    pub(crate) fn waiting(acquire: Acquire, service: S, request: R, classify: C) -> Self {
        Self { state: State::Waiting { acquire, call: Some((service, request)) }, classify }
    }

    pub(crate) fn running(permit: Permit, response: S::Future, classify: C) -> Self {
        Self { state: State::Running { permit: Some(permit), response }, classify }
    }

    pub(crate) fn refused(shed: Shed, classify: C) -> Self {
        Self { state: State::Refused { shed }, classify }
    }
}

impl<S, R, C> Future for ResponseFuture<S, R, C>
where
    S: Service<R>,
    C: Classify<S::Response, S::Error>,
{
    type Output = Result<S::Response, Error<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProjection::Refused { shed } => return Poll::Ready(Err(Error::Shed(*shed))),
                StateProjection::Running { permit, response } => {
                    let result = ready!(response.poll(cx));
                    if let Some(permit) = permit.take() {
                        permit.record(this.classify.classify(&result));
                    }
                    return Poll::Ready(result.map_err(Error::Inner));
                }
                StateProjection::Waiting { acquire, call } => {
                    match (ready!(Pin::new(acquire).poll(cx)), call.take()) {
                        (Err(shed), _) => State::Refused { shed },
                        (Ok(permit), Some((mut service, request))) => {
                            State::Running { permit: Some(permit), response: service.call(request) }
                        }
                        // Only after the call before panicked, and whoever polls then may wait for ever.
                        (Ok(_), None) => return Poll::Pending,
                    }
                }
            };
            this.state.set(next);
        }
    }
}

impl<S: Service<R>, R, C> fmt::Debug for ResponseFuture<S, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
