//! A call that has a place, or waits for one.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{Acquire, Error, Hold, Permit};

pin_project! {
    /// The answer, or that there was no place.
    pub struct ResponseFuture<S, Req, H>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, Req, S::Future>,
        hold: PhantomData<fn() -> H>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, Req, F> {
        // In a box, so that the calls that need not wait do not carry its timer about.
        Waiting { acquire: Pin<Box<Acquire>>, service: S, request: Option<Req> },
        Running { #[pin] call: F, permit: Option<Permit> },
    }
}

impl<S: Service<Req>, Req, H> ResponseFuture<S, Req, H> {
    pub(crate) fn running(call: S::Future, permit: Permit) -> Self {
        Self { state: State::Running { call, permit: Some(permit) }, hold: PhantomData }
    }

    pub(crate) fn waiting(acquire: Acquire, service: S, request: Req) -> Self {
        let acquire = Box::pin(acquire);
        Self { state: State::Waiting { acquire, service, request: Some(request) }, hold: PhantomData }
    }
}

impl<S, Req, H> Future for ResponseFuture<S, Req, H>
where
    S: Service<Req>,
    H: Hold<S::Response>,
{
    type Output = Result<H::Answer, Error<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Waiting { acquire, service, request } => {
                    let permit = ready!(acquire.as_mut().poll(cx)).map_err(Error::Refused)?;
                    // Polled again after it was ready, which no future is bound to bear.
                    let Some(request) = request.take() else { return Poll::Pending };
                    let call = service.call(request);
                    this.state.set(State::Running { call, permit: Some(permit) });
                }
                StateProjection::Running { call, permit } => {
                    let answer = ready!(call.poll(cx));
                    let Some(permit) = permit.take() else { return Poll::Pending };
                    return Poll::Ready(match answer {
                        Ok(answer) => Ok(H::hold(permit, answer)),
                        Err(error) => Err(Error::Inner(error)),
                    });
                }
            }
        }
    }
}

impl<S: Service<Req>, Req, H> fmt::Debug for ResponseFuture<S, Req, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
