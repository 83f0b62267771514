//! The service the layer makes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tower::Service;

use crate::{CircuitBreaker, Classify, Error, Refused, ResponseFuture};

/// Asks its circuit breaker before every call and tells it how the call went; made by
/// [`CircuitBreakerLayer`](crate::CircuitBreakerLayer).
pub struct CircuitBreakerService<S, C> {
    inner: S,
    breaker: CircuitBreaker,
    classify: C,
    readiness: Readiness,
    calls: u32,
}

/// What is known of the inner service.
enum Readiness {
    /// Nothing: it was not asked, or it was called since.
    Unknown,
    /// It has to be waited for; the signal wakes us if the circuit opens meanwhile.
    Awaited(Pin<Box<OwnedNotified>>),
    /// It said that it is ready, or that it is broken for good.
    Ready,
}

impl<S, C> CircuitBreakerService<S, C> {
    pub(crate) fn new(inner: S, breaker: CircuitBreaker, classify: C) -> Self {
        Self { inner, breaker, classify, readiness: Readiness::Unknown, calls: 0 }
    }

    /// Pending until the circuit opens. Ready at once the first time, so that everything is looked at again now that
    /// no opening can be missed.
    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Readiness::Awaited(opened) = &mut self.readiness {
            ready!(opened.as_mut().poll(cx));
        }
        self.readiness = Readiness::Awaited(Box::pin(self.breaker.opened()));
        Poll::Ready(())
    }
}

impl<S, C, Req> Service<Req> for CircuitBreakerService<S, C>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<S::Future, C>;

    /// Ready at once while calls are refused: nobody waits for a callee that he may not call.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        while self.breaker.refusal().is_none() {
            match self.inner.poll_ready(cx) {
                Poll::Ready(answer) => {
                    self.readiness = Readiness::Ready;
                    return Poll::Ready(answer.map_err(Error::Inner));
                }
                Poll::Pending => ready!(self.poll_opened(cx)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        if !matches!(self.readiness, Readiness::Ready) {
            // The circuit was open when we were asked whether we are ready. If it has closed since, it is too late for
            // this call to ask the inner service.
            let gone = Refused { retry_after: Duration::ZERO };
            return ResponseFuture::refused(self.breaker.refusal().unwrap_or(gone));
        }
        // Not before the second call, because many a service is made for a single one.
        self.calls = self.calls.saturating_add(1);
        if self.calls == 2 {
            self.breaker = self.breaker.apart();
        }
        // Not after the permit was given: it would have to be kept safe while this drops what it replaces, and be moved
        // once more.
        self.readiness = Readiness::Unknown;
        match self.breaker.try_acquire() {
            Ok(permit) => ResponseFuture::running(self.inner.call(request), permit, self.classify.clone()),
            Err(refused) => {
                self.readiness = Readiness::Ready;
                ResponseFuture::refused(refused)
            }
        }
    }
}

impl<S: Clone, C: Clone> Clone for CircuitBreakerService<S, C> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.breaker.clone(), self.classify.clone())
    }
}

impl<S: fmt::Debug, C> fmt::Debug for CircuitBreakerService<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerService")
            .field("inner", &self.inner)
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests {
    use std::future::{pending, poll_fn, ready};
    use std::panic::AssertUnwindSafe;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use stampede_deadline::Clock;
    use stampede_testkit::layer::{Ask, Failed, Probe, ask};
    use tokio::time::advance;
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;
    use crate::{CircuitBreakerLayer, Forced, Outcome, Policy, State, Trip};

    fn outcome<T, E>(answer: &Result<T, E>) -> Outcome {
        if answer.is_ok() { Outcome::Success } else { Outcome::Failure }
    }

    fn breaker(failures: u32) -> CircuitBreaker {
        let policy = Policy::new(Trip::consecutive(failures).unwrap());
        CircuitBreaker::observed(policy, Clock::tokio(), |_| {})
    }

    /// Never ready; counts how often it was asked.
    #[derive(Clone, Default)]
    struct Busy(Arc<AtomicU32>);

    impl Service<()> for Busy {
        type Response = ();
        type Error = Failed;
        type Future = std::future::Ready<Result<(), Failed>>;

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Poll::Pending
        }

        fn call(&mut self, (): ()) -> Self::Future {
            panic!("called although it is not ready")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_probes_and_closes() {
        let breaker = breaker(2);
        let mut service =
            CircuitBreakerLayer::new(breaker.clone(), outcome::<(), Failed>).layer(Probe::default());
        for _ in 0..2 {
            assert_eq!(ask(&mut service, Ask::Fail).await, Err(Error::Inner(Failed)));
        }
        advance(Duration::from_millis(999)).await;
        let refused = Refused { retry_after: Duration::from_millis(1) };
        assert_eq!(ask(&mut service, Ask::Answer).await, Err(Error::Open(refused)));

        advance(Duration::from_millis(1)).await;
        assert_eq!(ask(&mut service, Ask::Fail).await, Err(Error::Inner(Failed)));
        let refused = Refused { retry_after: Duration::from_secs(2) };
        assert_eq!(ask(&mut service, Ask::Answer).await, Err(Error::Open(refused)));

        advance(Duration::from_secs(2)).await;
        assert_eq!(ask(&mut service, Ask::Answer).await, Ok(()));
        assert_eq!(breaker.snapshot().state, State::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_circuit_does_not_wait_for_a_busy_service() {
        let (breaker, busy) = (breaker(1), Busy::default());
        breaker.force(Some(Forced::Open));
        let mut service =
            CircuitBreakerLayer::new(breaker.clone(), outcome::<(), Failed>).layer(busy.clone());
        assert!(matches!(service.ready().await.unwrap().call(()).await, Err(Error::Open(_))));
        assert_eq!(busy.0.load(Ordering::SeqCst), 0);

        // Closed again, but this service said so while it was open, and never asked the inner one.
        let ready = service.ready().await.unwrap();
        breaker.force(Some(Forced::Closed));
        assert_eq!(ready.call(()).await, Err(Error::Open(Refused { retry_after: Duration::ZERO })));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_busy_service_is_sent_away_when_the_circuit_opens() {
        let breaker = breaker(1);
        let service = CircuitBreakerLayer::new(breaker.clone(), outcome::<(), Failed>).layer(Busy::default());
        let waits = tokio::spawn(service.oneshot(()));
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        breaker.try_acquire().unwrap().record(Outcome::Failure);
        assert!(matches!(waits.await.unwrap(), Err(Error::Open(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn the_classifier_decides_what_is_a_failure() {
        let breaker = breaker(1);
        let by_status = |answer: &Result<u16, Failed>| match answer {
            Ok(400..500) => Outcome::Neutral,
            Ok(500..) | Err(_) => Outcome::Failure,
            Ok(_) => Outcome::Success,
        };
        let echo = service_fn(|status: u16| ready(Ok::<_, Failed>(status)));
        let mut service = CircuitBreakerLayer::new(breaker.clone(), by_status).layer(echo);
        for status in [200, 404, 422] {
            assert_eq!(service.ready().await.unwrap().call(status).await, Ok(status));
        }
        assert_eq!(service.ready().await.unwrap().call(503).await, Ok(503));
        assert!(matches!(service.ready().await.unwrap().call(200).await, Err(Error::Open(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_inside_is_a_failure_even_if_it_was_caught_before_the_call_was_dropped() {
        use futures::FutureExt;
        for panic in [Ask::Panic, Ask::PanicInCall] {
            let breaker = breaker(1);
            let mut service =
                CircuitBreakerLayer::new(breaker.clone(), outcome::<(), Failed>).layer(Probe::default());
            AssertUnwindSafe(ask(&mut service, panic)).catch_unwind().await.unwrap_err();
            assert_eq!(breaker.snapshot().state, State::Open, "{panic:?}");
        }
        // Here nothing is dropped while the thread panics.
        let breaker = breaker(1);
        let mut service =
            CircuitBreakerLayer::new(breaker.clone(), outcome::<(), Failed>).layer(Probe::default());
        let mut call = Box::pin(service.ready().await.unwrap().call(Ask::Panic));
        AssertUnwindSafe(call.as_mut()).catch_unwind().await.unwrap_err();
        drop(call);
        assert_eq!(breaker.snapshot().state, State::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn every_call_asks_the_inner_service_anew() {
        let mut service = CircuitBreakerLayer::new(breaker(1), outcome::<(), Failed>).layer(Probe::default());
        assert_eq!(ask(&mut service, Ask::Answer).await, Ok(()));
        assert!(matches!(service.call(Ask::Answer).await, Err(Error::Open(_))), "was not asked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_dropped_is_neither_lost_nor_a_failure() {
        let breaker = breaker(1);
        let hang = service_fn(|()| pending::<Result<(), Failed>>());
        let mut service = CircuitBreakerLayer::new(breaker.clone(), outcome::<(), Failed>).layer(hang);
        let mut call = Box::pin(service.ready().await.unwrap().call(()));
        poll_fn(|cx| {
            assert!(call.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(call);
        assert_eq!(breaker.snapshot().state, State::Closed);
    }
}
