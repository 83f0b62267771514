//! The outermost layer: counts how calls end, and gives their errors one shape.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use crossbeam_utils::CachePadded;
use pin_project_lite::pin_project;
use stampede_deadline::TimedOut;
use tower::{Layer, Service};

use crate::Error;
use crate::meaning::Guarded;

/// How many calls ended in which way, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// There was an answer, whatever it said.
    pub answered: u64,
    /// The callee's own errors.
    pub failed: u64,
    /// No answer in time.
    pub timed_out: u64,
    /// Refused by the open circuit.
    pub open: u64,
    /// Refused because too many calls were under way.
    pub crowded: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// On a cache line of its own: every call writes it, and the count of handles as well.
    answered: CachePadded<AtomicU64>,
    failed: AtomicU64,
    timed_out: AtomicU64,
    open: AtomicU64,
    crowded: AtomicU64,
}

impl Counters {
    fn count<T, E>(&self, answer: &Result<T, Error<E>>) {
        let counter = match answer {
            Ok(_) => &*self.answered,
            Err(Error::Inner(_)) => &self.failed,
            Err(Error::TimedOut) => &self.timed_out,
            Err(Error::Open(_)) => &self.open,
            Err(Error::Crowded(_)) => &self.crowded,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            answered: self.answered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            timed_out: self.timed_out.load(Ordering::Relaxed),
            open: self.open.load(Ordering::Relaxed),
            crowded: self.crowded.load(Ordering::Relaxed),
        }
    }
}

/// Counts calls in the counters of one destination.
#[derive(Clone, Debug)]
pub struct CountLayer(pub(crate) Arc<Counters>);

impl<S> Layer<S> for CountLayer {
    type Service = Count<S>;

    fn layer(&self, inner: S) -> Count<S> {
        Count { inner, counters: Arc::clone(&self.0) }
    }
}

/// Made by [`CountLayer`].
#[derive(Clone, Debug)]
pub struct Count<S> {
    inner: S,
    counters: Arc<Counters>,
}

impl<S, Req, E> Service<Req> for Count<S>
where
    S: Service<Req, Error = TimedOut<Guarded<E>>>,
{
    type Response = S::Response;
    type Error = Error<E>;
    type Future = CountFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error<E>>> {
        self.inner.poll_ready(cx).map_err(Error::from)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        CountFuture { call: self.inner.call(request), counters: Arc::clone(&self.counters) }
    }
}

pin_project! {
    /// The answer, counted.
    pub struct CountFuture<F> {
        #[pin]
        call: F,
        counters: Arc<Counters>,
    }
}

impl<F, T, E> Future for CountFuture<F>
where
    F: Future<Output = Result<T, TimedOut<Guarded<E>>>>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.call.poll(cx)).map_err(Error::from);
        this.counters.count(&answer);
        Poll::Ready(answer)
    }
}

impl<F> fmt::Debug for CountFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountFuture").finish_non_exhaustive()
    }
}
