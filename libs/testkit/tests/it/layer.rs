//! The contract of a layer finds the mistakes it is there for.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::{BoxFuture, Either, Ready, ready};
use stampede_testkit::layer::{Ask, Failed, Probe, Running, ask, keeps_the_contract, shares_its_state};
use tower::layer::layer_fn;
use tower::layer::util::Identity;
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer, Service};

/// Why the contract says no.
async fn complaint(check: impl Future<Output = ()>) -> String {
    let panic = AssertUnwindSafe(check).catch_unwind().await.unwrap_err();
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_layer_that_does_nothing_keeps_it() {
    keeps_the_contract(Identity::new).await;
}

#[tokio::test]
async fn permits_that_are_taken_when_a_service_gets_ready_are_held_by_idle_clones() {
    let complaint = complaint(keeps_the_contract(|| ConcurrencyLimitLayer::new(10))).await;
    assert!(complaint.contains("idle clones"), "{complaint}");
}

/// Calls a clone that nobody asked whether it is ready.
#[derive(Clone)]
struct FreshClone(Probe);

impl Service<Ask> for FreshClone {
    type Response = ();
    type Error = Failed;
    type Future = Running;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Ask) -> Running {
        self.0.clone().call(request)
    }
}

#[tokio::test]
async fn a_fresh_clone_is_not_ready() {
    let complaint = complaint(keeps_the_contract(|| layer_fn(FreshClone))).await;
    assert!(complaint.contains("fresh clone"), "{complaint}");
}

/// Gives its place back when a call ends, and only then.
#[derive(Clone)]
struct Leaky {
    inner: Probe,
    taken: Arc<AtomicUsize>,
}

impl Service<Ask> for Leaky {
    type Response = ();
    type Error = Failed;
    type Future = Either<Ready<Result<(), Failed>>, BoxFuture<'static, Result<(), Failed>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Ask) -> Self::Future {
        if self.taken.fetch_add(1, Ordering::SeqCst) >= 10 {
            return Either::Left(ready(Err(Failed)));
        }
        let (call, taken) = (self.inner.call(request), Arc::clone(&self.taken));
        Either::Right(Box::pin(async move {
            let answer = call.await;
            taken.fetch_sub(1, Ordering::SeqCst);
            answer
        }))
    }
}

#[tokio::test]
async fn a_place_that_is_given_back_at_the_end_only_is_lost_by_a_dropped_call() {
    let layer = || {
        let taken = Arc::new(AtomicUsize::new(0));
        layer_fn(move |inner| Leaky { inner, taken: Arc::clone(&taken) })
    };
    let complaint = complaint(keeps_the_contract(layer)).await;
    assert!(complaint.contains("dropped calls hold something"), "{complaint}");
}

/// Calls before the inner service is ready.
#[derive(Clone)]
struct Impatient(Probe);

impl Service<Ask> for Impatient {
    type Response = ();
    type Error = Failed;
    type Future = Running;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Ask) -> Running {
        self.0.call(request)
    }
}

#[tokio::test]
async fn a_service_that_is_not_ready_must_not_be_called() {
    let complaint = complaint(keeps_the_contract(|| layer_fn(Impatient))).await;
    assert!(complaint.contains("not ready"), "{complaint}");
}

async fn use_up<S: Service<Ask>>(service: &mut S) {
    while ask(service, Ask::Answer).await.is_ok() {}
}

/// Lets ten calls pass in all.
fn ten_in_all(inner: Probe, passed: Arc<AtomicUsize>) -> Quota {
    Quota { inner, passed }
}

#[derive(Clone)]
struct Quota {
    inner: Probe,
    passed: Arc<AtomicUsize>,
}

impl Service<Ask> for Quota {
    type Response = ();
    type Error = Failed;
    type Future = Either<Ready<Result<(), Failed>>, Running>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Ask) -> Self::Future {
        if self.passed.fetch_add(1, Ordering::SeqCst) >= 10 {
            Either::Left(ready(Err(Failed)))
        } else {
            Either::Right(self.inner.call(request))
        }
    }
}

#[tokio::test]
async fn state_is_shared_when_it_is_born_before_the_layer_is_applied() {
    let passed = Arc::new(AtomicUsize::new(0));
    let layer = layer_fn(move |inner| ten_in_all(inner, Arc::clone(&passed)));
    shares_its_state(&layer, async |service| use_up(service).await).await;
}

#[tokio::test]
async fn state_that_is_born_in_the_layer_is_found() {
    let layer = layer_fn(|inner| ten_in_all(inner, Arc::default()));
    let complaint = complaint(shares_its_state(&layer, async |service| use_up(service).await)).await;
    assert!(complaint.contains("born in `layer()`"), "{complaint}");
}

#[tokio::test]
async fn a_probe_counts_what_runs() {
    let probe = Probe::default();
    let mut service = Identity::new().layer(probe.clone());
    let call = service.call(Ask::Hang);
    assert_eq!((probe.calls(), probe.running()), (1, 1));
    drop(call);
    assert_eq!((probe.calls(), probe.running()), (1, 0));
}
