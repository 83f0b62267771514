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
    First,
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

    /// Polls every attempt. Returns the answer of the call, or the number of attempts whose place another one is to take
    /// now.
    fn poll_attempts(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Result<(Answer<S, Req>, Giver), u32> {
        let mut to_replace = 0;
        if let Some(first) = self.as_mut().project().first.as_pin_mut()
            && let Poll::Ready(answer) = first.poll(cx)
        {
            match self.classify.classify(&answer) {
                Verdict::Done => return Ok((answer, Giver::First)),
                verdict => to_replace += self.as_mut().keep(answer, verdict),
            }
            self.as_mut().project().first.set(None);
        }
        let mut n = 0;
        while let Some(other) = self.as_mut().project().others.get_mut(n) {
            match other.as_mut().poll(cx) {
                Poll::Pending => {
                    n += 1;
                    continue;
                }
                // A service that breaks is not asked again.
                Poll::Ready(Err(_never_ready)) => *self.as_mut().project().left = 0,
                Poll::Ready(Ok(answer)) => match self.classify.classify(&answer) {
                    Verdict::Done => {
                        self.others[n].span().record("won", true);
                        return Ok((answer, Giver::Other));
                    }
                    verdict => to_replace += self.as_mut().keep(answer, verdict),
                },
            }
            drop(self.as_mut().project().others.remove(n));
        }
        Err(to_replace)
    }

    /// Keeps an answer that a better one may replace: it ends nothing that still runs. Returns how many attempts are to be
    /// made in its place.
    fn keep(self: Pin<&mut Self>, answer: Answer<S, Req>, verdict: Verdict) -> u32 {
        let this = self.project();
        if verdict != Verdict::Refused || this.fallback.is_none() {
            *this.fallback = Some(answer);
        }
        if verdict == Verdict::Another {
            return 1;
        }
        *this.left = 0;
        0
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
        if let (Some(started), true) = (*this.started, this.first.is_some()) {
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
            let to_replace = match self.as_mut().poll_attempts(cx) {
                Ok((answer, giver)) => {
                    self.end(giver);
                    return Poll::Ready(answer);
                }
                Err(to_replace) => to_replace,
            };
            for _ in 0..to_replace {
                self.as_mut().fire();
                self.as_mut().project().timer.set(None);
            }
            if self.first.is_none() && self.others.is_empty() {
                return self.project().fallback.take().map_or(Poll::Pending, Poll::Ready);
            }
            if to_replace == 0 {
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
