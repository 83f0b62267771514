//! A call with all its attempts.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use stampede_deadline::{Deadline, current};
use tokio::time::{Sleep, sleep};
use tower::Service;
use tracing::instrument::{Instrument, Instrumented};

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
        Pausing { pause: Pause, next: Req, last: Result<T, E>, deadline: Option<Deadline> },
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

/// A pause before an attempt, seen in the trace. Empty only while it is dropped.
struct Pause(Option<Pin<Box<Instrumented<Sleep>>>>);

impl Pause {
    #[cold]
    fn begin(pause: Duration, attempt: u32) -> Self {
        let span = tracing::info_span!("retry pause", attempt);
        Self(Some(Box::pin(sleep(pause).instrument(span))))
    }

    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().map_or(Poll::Ready(()), |pause| pause.as_mut().poll(cx))
    }
}

impl Drop for Pause {
    /// Out of line: what drops a timer is too much for the compiler to inline, and with it all that drops a call would
    /// be a function of its own, which doubles the price of a call that never pauses.
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        self.0 = None;
    }
}

type Answer<S, Req> = Result<<S as Service<Req>>::Response, <S as Service<Req>>::Error>;

impl<S, R, Req> ResponseFuture<S, R, Req>
where
    S: Service<Req>,
    R: Rules<Req, S::Response, S::Error>,
{
    /// Pauses before the next attempt, or gives the answer back if there is none.
    fn begin_pause(self: Pin<&mut Self>, verdict: Verdict, answer: Answer<S, Req>) -> Option<Answer<S, Req>> {
        let mut this = self.project();
        let deadline = current();
        let left = deadline.map(Deadline::remaining);
        let pause = this.policy.pause(*this.attempt, verdict, left);
        let (Some(pause), Some(next)) = (pause, this.copy.take()) else { return Some(answer) };
        let pause = Pause::begin(pause, *this.attempt + 1);
        this.state.set(State::Pausing { pause, next, last: answer, deadline });
        None
    }

    /// Ready when the next attempt has begun, or with the answer of the last one if there is none.
    fn poll_pause(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer<S, Req>>> {
        let mut this = self.project();
        if let StateProjection::Pausing { pause, .. } = this.state.as_mut().project() {
            ready!(pause.poll(cx));
            let paused = this.state.as_mut().project_replace(State::Finished);
            let StateOwned::Pausing { next, last, deadline, .. } = paused else { return Poll::Pending };
            // Timers are late by up to a millisecond, and by more on a busy machine.
            if deadline.is_some_and(Deadline::is_expired) {
                return Poll::Ready(Some(last));
            }
            this.state.set(State::GettingReady { next });
        }
        // Polled again after it was ready, which no future is bound to bear.
        if !matches!(*this.state, State::GettingReady { .. }) {
            return Poll::Pending;
        }
        if let Err(error) = ready!(this.service.poll_ready(cx)) {
            return Poll::Ready(Some(Err(error)));
        }
        let waiting = this.state.as_mut().project_replace(State::Finished);
        let StateOwned::GettingReady { mut next } = waiting else { return Poll::Pending };
        *this.attempt += 1;
        if this.policy.has_more(*this.attempt) {
            *this.copy = this.rules.copy(&next);
        }
        this.rules.number(&mut next, *this.attempt);
        this.state.set(State::Calling { attempt: this.service.call(next) });
        Poll::Ready(None)
    }
}

impl<S, R, Req> Future for ResponseFuture<S, R, Req>
where
    S: Service<Req>,
    R: Rules<Req, S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            // All there is to do for a call that succeeds at once, and kept apart from what is not.
            if let StateProjection::Calling { attempt } = self.as_mut().project().state.project() {
                let result = ready!(attempt.poll(cx));
                if self.copy.is_none() {
                    return Poll::Ready(result);
                }
                let verdict = self.rules.verdict(&result);
                if verdict == Verdict::Final {
                    return Poll::Ready(result);
                }
                if let Some(last) = self.as_mut().begin_pause(verdict, result) {
                    return Poll::Ready(last);
                }
            }
            if let Some(last) = ready!(self.as_mut().poll_pause(cx)) {
                return Poll::Ready(last);
            }
        }
    }
}

impl<S: Service<Req>, R, Req> fmt::Debug for ResponseFuture<S, R, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}
