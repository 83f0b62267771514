//! The deadline of a call that goes out.

use std::fmt;
use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::MAX;
use crate::scope::{Bound, Within};

/// A time-out that no call could keep, or that bounds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time-out is between one millisecond and ten minutes")]
pub struct InvalidTimeout;

/// What [`Timeout`] fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimedOut<E> {
    /// There was no answer in time; the call was dropped, and nobody knows whether it had an effect.
    #[error("there was no answer in time")]
    Elapsed,
    /// The inner service's own.
    #[error("{0}")]
    Inner(#[source] E),
}

/// Gives every call at most so long, and never more than the deadline of the scope it is made in. The call runs in a
/// scope of that end, so what it sends on says the shorter time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutLayer {
    nanos: NonZeroU64,
}

impl TimeoutLayer {
    /// `length` counts from the first poll that finds no answer.
    ///
    /// # Errors
    /// [`InvalidTimeout`] below 1 ms or above ten minutes.
    pub fn try_new(length: Duration) -> Result<Self, InvalidTimeout> {
        let nanos = u64::try_from(length.as_nanos()).ok().and_then(NonZeroU64::new).ok_or(InvalidTimeout)?;
        if (Duration::from_millis(1)..=MAX).contains(&length) {
            Ok(Self { nanos })
        } else {
            Err(InvalidTimeout)
        }
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout { inner, nanos: self.nanos }
    }
}

/// Made by [`TimeoutLayer`].
#[derive(Clone, Copy, Debug)]
pub struct Timeout<S> {
    inner: S,
    nanos: NonZeroU64,
}

impl<S: Service<Req>, Req> Service<Req> for Timeout<S> {
    type Response = S::Response;
    type Error = TimedOut<S::Error>;
    type Future = TimeoutFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(TimedOut::Inner)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let mut bound = Bound::lasting(self.nanos);
        // Whoever is called may already look at the deadline while they make their future.
        let call = bound.enter(|| self.inner.call(request));
        TimeoutFuture { call: Within::lasting(bound, call) }
    }
}

pin_project! {
    /// The answer, or that it did not come in time.
    pub struct TimeoutFuture<F> {
        #[pin]
        call: Within<F>,
    }
}

impl<F, T, E> Future for TimeoutFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, TimedOut<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(self.project().call.poll(cx)) {
            Ok(answer) => Poll::Ready(answer.map_err(TimedOut::Inner)),
            Err(_elapsed) => Poll::Ready(Err(timed_out())),
        }
    }
}

/// Leaves a mark in the trace.
#[cold]
fn timed_out<E>() -> TimedOut<E> {
    drop(tracing::info_span!("timed out", otel.status_code = "ERROR"));
    TimedOut::Elapsed
}

impl<F> fmt::Debug for TimeoutFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutFuture").field("call", &self.call).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use stampede_testkit::Spans;
    use stampede_testkit::layer::{Ask, Probe, ask, keeps_the_contract};
    use tokio::time::{Instant, sleep};
    use tower::{ServiceBuilder, service_fn};

    use super::*;
    use crate::{Deadline, current, scope};

    fn layer(millis: u64) -> TimeoutLayer {
        TimeoutLayer::try_new(Duration::from_millis(millis)).unwrap()
    }

    #[test]
    fn a_time_out_that_makes_no_sense_is_refused() {
        for wrong in [0, 600_001] {
            assert_eq!(TimeoutLayer::try_new(Duration::from_millis(wrong)), Err(InvalidTimeout));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_keeps_the_contract_of_layers() {
        keeps_the_contract(|| layer(1_000)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_after_its_time() {
        let started = Instant::now();
        let (probe, spans) = (Probe::default(), Spans::record());
        assert_eq!(ask(&mut layer(50).layer(probe.clone()), Ask::Answer).await, Ok(()));
        assert_eq!(spans.seen(), []);
        assert_eq!(ask(&mut layer(50).layer(probe.clone()), Ask::Hang).await, Err(TimedOut::Elapsed));
        assert_eq!(spans.names(), [("timed out", None)], "a trace shows it");
        assert_eq!(started.elapsed(), Duration::from_millis(50));
        assert_eq!(probe.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_of_the_scope_comes_first() {
        let started = Instant::now();
        let soon = Deadline::after(Duration::from_millis(20));
        let mut service = layer(50).layer(Probe::default());
        assert_eq!(scope(soon, ask(&mut service, Ask::Hang)).await, Err(TimedOut::Elapsed));
        assert_eq!(started.elapsed(), Duration::from_millis(20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_was_made_outside_of_the_scope_obeys_it_as_well() {
        let started = Instant::now();
        let call = layer(50).layer(Probe::default()).call(Ask::Hang);
        assert_eq!(scope(Deadline::after(Duration::from_millis(20)), call).await, Err(TimedOut::Elapsed));
        assert_eq!(started.elapsed(), Duration::from_millis(20));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_called_sees_the_shorter_time_and_it_does_not_grow() {
        let handler = service_fn(async |(): ()| {
            let first = current();
            sleep(Duration::from_millis(30)).await;
            assert_eq!(current(), first);
            Ok::<_, Infallible>(first)
        });
        let mut service = ServiceBuilder::new().layer(layer(70)).layer(layer(500)).service(handler);
        let before = Deadline::after(Duration::from_millis(70));
        assert_eq!(service.call(()).await, Ok(Some(before)));

        let mut outer_is_longer = layer(40).layer(handler);
        let far = Deadline::after(Duration::from_secs(9));
        let before = Deadline::after(Duration::from_millis(40));
        assert_eq!(scope(far, outer_is_longer.call(())).await, Ok(Some(before)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_whenever_somebody_first_looks_at_it() {
        let started = Instant::now();
        let asks_at_once = service_fn(|(): ()| {
            let seen = current();
            async move {
                sleep(Duration::from_secs(60)).await;
                Ok::<_, Infallible>(seen)
            }
        });
        let call = layer(50).layer(asks_at_once).call(());
        sleep(Duration::from_millis(20)).await;
        assert_eq!(call.await, Err(TimedOut::Elapsed));
        assert_eq!(started.elapsed(), Duration::from_millis(50), "it was told when the call was made");
    }
}
