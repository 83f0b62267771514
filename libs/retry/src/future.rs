//! A call with all its attempts.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use stampede_deadline::{Deadline, current};
use tokio::time::{Sleep, sleep};
use tower::Service;

use crate::{RetryPolicy, Rules, Verdict};

pin_project! {
    /// The answer of the last attempt.
    pub struct ResponseFuture<S, R, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S::Future, Req, S::Response, S::Error>,
        service: S,
        copy: Option<Req>,
        attempt: u32,
        policy: RetryPolicy,
        rules: R,
    }
}

pin_project! {
    #[project = StateProjection]
    #[project_replace = StateOwned]
    enum State<F, Req, T, E> {
        Calling { #[pin] attempt: F },
        // What the last attempt said is kept: if the deadline comes during the pause, it is the answer. The timer is in a
        // box, so that the calls that need none do not carry it about.
        Pausing { pause: Pin<Box<Sleep>>, next: Req, last: Result<T, E>, deadline: Option<Deadline> },
        GettingReady { next: Req },
        Finished,
    }
}

impl<S: Service<Req>, R, Req> ResponseFuture<S, R, Req> {
    pub(crate) fn new(
        first: S::Future,
        copy: Option<Req>,
        service: S,
        policy: RetryPolicy,
        rules: R,
    ) -> Self {
        Self { state: State::Calling { attempt: first }, service, copy, attempt: 0, policy, rules }
    }
}

impl<S, R, Req> Future for ResponseFuture<S, R, Req>
where
    S: Service<Req>,
    R: Rules<Req, S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Calling { attempt } => {
                    let result = ready!(attempt.poll(cx));
                    let Some(next) = this.copy.take() else { return Poll::Ready(result) };
                    let verdict = this.rules.verdict(&result);
                    if verdict == Verdict::Final {
                        return Poll::Ready(result);
                    }
                    let deadline = current();
                    let left = deadline.map(Deadline::remaining);
                    let Some(pause) = this.policy.pause(*this.attempt, verdict, left) else {
                        return Poll::Ready(result);
                    };
                    this.state.set(State::Pausing {
                        pause: Box::pin(sleep(pause)),
                        next,
                        last: result,
                        deadline,
                    });
                }
                StateProjection::Pausing { pause, .. } => {
                    ready!(pause.as_mut().poll(cx));
                    let paused = this.state.as_mut().project_replace(State::Finished);
                    let StateOwned::Pausing { next, last, deadline, .. } = paused else {
                        return Poll::Pending;
                    };
                    // Timers are late by up to a millisecond, and by more on a busy machine.
                    if deadline.is_some_and(Deadline::is_expired) {
                        return Poll::Ready(last);
                    }
                    this.state.set(State::GettingReady { next });
                }
                StateProjection::GettingReady { .. } => {
                    ready!(this.service.poll_ready(cx))?;
                    let waiting = this.state.as_mut().project_replace(State::Finished);
                    let StateOwned::GettingReady { mut next } = waiting else { return Poll::Pending };
                    *this.attempt += 1;
                    if this.policy.has_more(*this.attempt) {
                        *this.copy = this.rules.copy(&next);
                    }
                    this.rules.number(&mut next, *this.attempt);
                    this.state.set(State::Calling { attempt: this.service.call(next) });
                }
                // Polled again after it was ready, which no future is bound to bear.
                StateProjection::Finished => return Poll::Pending,
            }
        }
    }
}

impl<S: Service<Req>, R, Req> fmt::Debug for ResponseFuture<S, R, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}
