//! The contract of a tower layer, the same for every one of ours.
//!
//! A layer that breaks it looks right in a unit test and fails in a server: it limits nothing because its state is
//! made in `layer()`, calls a clone that was never asked whether it is ready, or keeps what a dropped call held.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use futures::future::poll_fn;
use tokio::task::yield_now;
use tower::{Layer, Service, ServiceExt};

/// More often than any limit that is set in a test: whoever leaks one place a call has none left.
const MANY: usize = 1_000;

/// What the inner service does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Answers at once.
    Answer,
    /// Answers with an error at once.
    Fail,
    /// Never answers.
    Hang,
    /// Panics when its future is polled.
    Panic,
    /// Panics before there is a future.
    PanicInCall,
}

/// The error of the inner service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the inner service failed, as it was asked to")
    }
}

impl std::error::Error for Failed {}

/// The inner service: does what it is asked, and watches how it is treated. Clones share what they saw, but each has
/// to be asked for itself whether it is ready.
#[derive(Debug, Default)]
pub struct Probe {
    seen: Arc<Seen>,
    asked_ready: bool,
}

#[derive(Debug, Default)]
struct Seen {
    calls: AtomicUsize,
    running: AtomicUsize,
    not_ready: AtomicBool,
    broken: AtomicBool,
    called_unready: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
}

impl Probe {
    /// How often it was called.
    pub fn calls(&self) -> usize {
        self.seen.calls.load(Ordering::SeqCst)
    }

    /// How many of its futures exist.
    pub fn running(&self) -> usize {
        self.seen.running.load(Ordering::SeqCst)
    }

    /// How often it was called without having said that it is ready.
    pub fn called_unready(&self) -> usize {
        self.seen.called_unready.load(Ordering::SeqCst)
    }

    fn be_ready(&self, ready: bool) {
        self.seen.not_ready.store(!ready, Ordering::SeqCst);
        if ready {
            let wakers =
                std::mem::take(&mut *self.seen.wakers.lock().unwrap_or_else(PoisonError::into_inner));
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self { seen: Arc::clone(&self.seen), asked_ready: false }
    }
}

impl Service<Ask> for Probe {
    type Response = ();
    type Error = Failed;
    type Future = Running;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        if self.seen.broken.load(Ordering::SeqCst) {
            return Poll::Ready(Err(Failed));
        }
        if self.seen.not_ready.load(Ordering::SeqCst) {
            self.seen.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(cx.waker().clone());
            return Poll::Pending;
        }
        self.asked_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, ask: Ask) -> Running {
        if !std::mem::take(&mut self.asked_ready) {
            self.seen.called_unready.fetch_add(1, Ordering::SeqCst);
        }
        self.seen.calls.fetch_add(1, Ordering::SeqCst);
        if ask == Ask::PanicInCall {
            super::fail("the inner service panics, as it was asked to");
        }
        self.seen.running.fetch_add(1, Ordering::SeqCst);
        Running { ask, seen: Arc::clone(&self.seen) }
    }
}

/// The future of a [`Probe`].
#[derive(Debug)]
pub struct Running {
    ask: Ask,
    seen: Arc<Seen>,
}

impl Future for Running {
    type Output = Result<(), Failed>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.ask {
            Ask::Answer => Poll::Ready(Ok(())),
            Ask::Fail => Poll::Ready(Err(Failed)),
            Ask::Hang => Poll::Pending,
            Ask::Panic | Ask::PanicInCall => super::fail("the inner service panics, as it was asked to"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.seen.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A layer that can stand around a [`Probe`]; every layer that can is one.
pub trait ProbeLayer: Layer<Probe, Service: Service<Ask, Response = (), Error: fmt::Debug> + Clone> {}

impl<L> ProbeLayer for L where L: Layer<Probe, Service: Service<Ask, Response = (), Error: fmt::Debug> + Clone>
{}

/// Plays the whole contract against layers that `make` makes, each with fresh state: readiness, clones, cancellation,
/// a future that is never polled, a panic inside. The layer must let at least one [`Ask::Answer`] at a time pass, and
/// must not take dropped or panicking calls for a reason to refuse (give a breaker a high threshold).
///
/// # Panics
/// With the rule that was broken.
pub async fn keeps_the_contract<L: ProbeLayer>(make: impl Fn() -> L) {
    waits_for_the_inner_service(&make()).await;
    passes_on_that_the_inner_service_is_broken(&make()).await;
    idle_clones_hold_nothing(&make()).await;
    a_dropped_call_holds_nothing(&make()).await;
    a_call_never_polled_holds_nothing(&make()).await;
    a_panic_inside_holds_nothing(&make()).await;
}

/// Checks that a refusal is everybody's: `use_up` drives one service until it refuses; then a clone of it, and a
/// service that the same layer made anew (as axum does for every connection), must refuse as well.
///
/// # Panics
/// When one of them does not refuse.
pub async fn shares_its_state<L: ProbeLayer>(layer: &L, use_up: impl AsyncFn(&mut L::Service)) {
    let probe = Probe::default();
    let mut first = layer.layer(probe.clone());
    let (mut cloned, mut made_again) = (first.clone(), layer.layer(probe.clone()));
    if ask(&mut made_again, Ask::Answer).await.is_err() {
        super::fail("a fresh layer refuses its first call");
    }
    use_up(&mut first).await;
    let calls = probe.calls();
    for (service, whose) in [(&mut first, "the service that was used up"), (&mut cloned, "its clone")] {
        if ask(service, Ask::Answer).await.is_ok() {
            super::fail(&format!("{whose} does not refuse"));
        }
    }
    if ask(&mut made_again, Ask::Answer).await.is_ok() {
        super::fail("a service made anew by the same layer does not refuse: its state is born in `layer()`");
    }
    if probe.calls() != calls {
        super::fail("a refused call reached the inner service");
    }
}

/// One call, as tower asks for it.
///
/// # Errors
/// The service's own.
pub async fn ask<S: Service<Ask>>(service: &mut S, ask: Ask) -> Result<S::Response, S::Error> {
    service.ready().await?.call(ask).await
}

async fn waits_for_the_inner_service(layer: &impl ProbeLayer) {
    let probe = Probe::default();
    let mut service = layer.layer(probe.clone());
    probe.be_ready(false);
    // Layers that ask for readiness within the call say that they are ready at once, and wait there.
    let mut call = Box::pin(ask(&mut service, Ask::Answer));
    for _ in 0..3 {
        if call.as_mut().now_or_never().is_some() {
            super::fail("a call was answered although the inner service was not ready");
        }
        yield_now().await;
    }
    if probe.calls() > 0 {
        super::fail("the inner service was called before it was ready");
    }
    probe.be_ready(true);
    expect_answer(call.await, "after the inner service became ready");
    for _ in 0..3 {
        expect_answer(ask(&mut service, Ask::Answer).await, "of a service that is ready");
    }
    never_called_unready(&probe);
}

async fn passes_on_that_the_inner_service_is_broken(layer: &impl ProbeLayer) {
    let probe = Probe::default();
    probe.seen.broken.store(true, Ordering::SeqCst);
    if ask(&mut layer.layer(probe.clone()), Ask::Answer).await.is_ok() {
        super::fail("a broken inner service is shown as working");
    }
    if probe.calls() > 0 {
        super::fail("a broken inner service was called");
    }
}

async fn idle_clones_hold_nothing(layer: &impl ProbeLayer) {
    let probe = Probe::default();
    let mut service = layer.layer(probe.clone());
    let mut idle = Vec::new();
    for _ in 0..MANY {
        let mut clone = service.clone();
        // Ready, and then nothing: a connection that waits for its next request.
        if poll_fn(|cx| clone.poll_ready(cx)).now_or_never().is_none() {
            super::fail("idle clones that said they were ready keep others from getting ready");
        }
        idle.push(clone);
    }
    expect_answer(ask(&mut service, Ask::Answer).await, "beside many idle clones");
    for mut clone in idle.into_iter().take(3) {
        expect_answer(clone.call(Ask::Answer).await, "of a clone that was ready long ago");
    }
    never_called_unready(&probe);
}

async fn a_dropped_call_holds_nothing(layer: &impl ProbeLayer) {
    let probe = Probe::default();
    let mut service = layer.layer(probe.clone());
    for _ in 0..MANY {
        let mut call = Box::pin(ask(&mut service, Ask::Hang));
        if call.as_mut().now_or_never().is_some() {
            super::fail(
                "a call ended although the inner service never answers: dropped calls hold something",
            );
        }
        drop(call);
    }
    if probe.running() > 0 {
        super::fail("a dropped call goes on inside");
    }
    expect_answer(ask(&mut service, Ask::Answer).await, "after many dropped calls");
    never_called_unready(&probe);
}

async fn a_call_never_polled_holds_nothing(layer: &impl ProbeLayer) {
    let probe = Probe::default();
    let mut service = layer.layer(probe.clone());
    for _ in 0..MANY {
        match service.ready().await {
            Ok(ready) => drop(ready.call(Ask::Answer)),
            Err(error) => super::fail(&format!("not ready after calls that were never polled: {error:?}")),
        }
    }
    if probe.running() > 0 {
        super::fail("a call that was never polled goes on inside");
    }
    expect_answer(ask(&mut service, Ask::Answer).await, "after many calls that were never polled");
    never_called_unready(&probe);
}

async fn a_panic_inside_holds_nothing(layer: &impl ProbeLayer) {
    let probe = Probe::default();
    let mut service = layer.layer(probe.clone());
    for round in 0..MANY {
        let panic = if round % 2 == 0 { Ask::Panic } else { Ask::PanicInCall };
        // The service lives on, as it does in a server whose task caught the panic.
        if AssertUnwindSafe(ask(&mut service, panic)).catch_unwind().await.is_ok() {
            super::fail("a panic inside was swallowed, or the call did not get through");
        }
    }
    expect_answer(ask(&mut service, Ask::Answer).await, "after many panics inside");
    never_called_unready(&probe);
}

fn expect_answer<E: fmt::Debug>(answer: Result<(), E>, when: &str) {
    if let Err(error) = answer {
        super::fail(&format!("no answer {when}: {error:?}"));
    }
}

fn never_called_unready(probe: &Probe) {
    if probe.called_unready() > 0 {
        super::fail("an inner service was called that had not said it was ready: a fresh clone, most likely");
    }
}
