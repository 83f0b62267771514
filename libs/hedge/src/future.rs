//! The attempts of one call.

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use stampede_deadline::Moment;
use tokio::time::{Instant, Sleep, sleep};
use tower::Service;
use tracing::field;
use tracing::instrument::{Instrument, Instrumented};

use crate::attempt::Attempt;
use crate::{Classify, Hedge, Verdict};

pin_project! {
    /// The first good answer of the attempts of a call.
    ///
    /// Without a second poll it costs neither clock nor timer: a call that is answered at once was never a reason to
    /// hedge. So only calls that had to wait are measured, and they are the ones about which the quantile decides.
    pub struct ResponseFuture<S, C, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        first: Option<S::Future>,
        #[pin]
        timer: Option<Sleep>,
        started: Option<Moment>,
        others: Vec<Pin<Box<Instrumented<Attempt<S, Req>>>>>,
        // How many attempts may still be made.
        left: u32,
        // What the call ends with if no attempt does better.
        fallback: Option<Answer<S, Req>>,
        spare: S,
        request: Req,
        hedge: Hedge,
        classify: C,
    }
}

/// Which attempt gave the answer.
enum Giver {
    First(Verdict),
    Other,
}

type Answer<S, Req> = Result<<S as Service<Req>>::Response, <S as Service<Req>>::Error>;

impl<S, C, Req> ResponseFuture<S, C, Req>
where
    S: Service<Req> + Clone,
    Req: Clone,
    C: Classify<S::Response, S::Error>,
{
    pub(crate) fn new(first: S::Future, spare: S, request: Req, hedge: Hedge, classify: C) -> Self {
        Self {
            first: Some(first),
            timer: None,
            started: None,
            others: Vec::new(),
            left: hedge.attempts_max() - 1,
            fallback: None,
            spare,
            request,
            hedge,
            classify,
        }
    }

    /// Asks every attempt. Ready with the answer of the call, or with the number of attempts that failed just now.
    fn poll_attempts(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Result<(Answer<S, Req>, Giver), u32> {
        let mut this = self.project();
        let mut failed = 0;
        if let Some(first) = this.first.as_mut().as_pin_mut()
            && let Poll::Ready(answer) = first.poll(cx)
        {
            match this.classify.classify(&answer) {
                Verdict::Another => *this.fallback = Some(answer),
                verdict => return Ok((answer, Giver::First(verdict))),
            }
            this.first.set(None);
            failed += 1;
        }
        let mut n = 0;
        while let Some(other) = this.others.get_mut(n) {
            match other.as_mut().poll(cx) {
                Poll::Pending => {
                    n += 1;
                    continue;
                }
                // A service that breaks is not asked again.
                Poll::Ready(Err(_never_ready)) => *this.left = 0,
                Poll::Ready(Ok(answer)) => {
                    if this.classify.classify(&answer) != Verdict::Another {
                        other.span().record("won", true);
                        return Ok((answer, Giver::Other));
                    }
                    *this.fallback = Some(answer);
                    failed += 1;
                }
            }
            drop(this.others.remove(n));
        }
        Err(failed)
    }

    /// Makes one more attempt, if the budget grants it; if it does not, the call goes on with those it has.
    fn fire(self: Pin<&mut Self>) {
        let this = self.project();
        if *this.left == 0 {
            return;
        }
        if !this.hedge.is_granted() {
            *this.left = 0;
            return;
        }
        *this.left -= 1;
        let attempt = Attempt::new(this.spare.clone(), this.request.clone());
        this.others.push(Box::pin(attempt.instrument(tracing::info_span!("hedge", won = field::Empty))));
    }

    /// Ready when the attempt that was made last has been waited for long enough.
    fn poll_timer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if *this.left == 0 {
            this.timer.set(None);
            return Poll::Pending;
        }
        if this.timer.is_none() {
            this.started.get_or_insert_with(|| this.hedge.now());
            this.timer.set(Some(sleep(this.hedge.delay())));
        }
        let Some(mut timer) = this.timer.as_mut().as_pin_mut() else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        timer.reset(Instant::now() + this.hedge.delay());
        Poll::Ready(())
    }

    /// Counts who won, and drops everything that still runs before anybody sees the answer.
    fn end(self: Pin<&mut Self>, giver: Giver) {
        let mut this = self.project();
        if matches!(giver, Giver::Other) {
            this.hedge.count_won();
        }
        if let (Some(started), true) = (*this.started, this.first.is_some())
            && !matches!(giver, Giver::First(Verdict::Fatal))
        {
            this.hedge.observe(started);
        }
        this.first.set(None);
        this.timer.set(None);
        this.others.clear();
    }
}

impl<S, C, Req> Future for ResponseFuture<S, C, Req>
where
    S: Service<Req> + Clone,
    Req: Clone,
    C: Classify<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let failed = match self.as_mut().poll_attempts(cx) {
                Ok((answer, giver)) => {
                    self.end(giver);
                    return Poll::Ready(answer);
                }
                Err(failed) => failed,
            };
            for _ in 0..failed {
                self.as_mut().fire();
                self.as_mut().project().timer.set(None);
            }
            if self.first.is_none() && self.others.is_empty() {
                return self.project().fallback.take().map_or(Poll::Pending, Poll::Ready);
            }
            if failed == 0 {
                ready!(self.as_mut().poll_timer(cx));
                self.as_mut().fire();
            }
        }
    }
}

impl<S: Service<Req>, C, Req> fmt::Debug for ResponseFuture<S, C, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("left", &self.left).finish_non_exhaustive()
    }
}
