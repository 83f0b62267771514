//! Each pattern beside its peers.

use std::future::Future;
use std::num::NonZeroU32;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use criterion::Criterion;
use stampede_bulkhead::{Bulkhead, BulkheadLayer, BulkheadSettings};
use stampede_circuit_breaker as breaker;
use stampede_circuit_breaker::{CircuitBreaker, CircuitBreakerLayer, Outcome, Trip};
use stampede_contracts::function::Safe;
use stampede_deadline::{Clock, TimeoutLayer};
use stampede_hedge as hedge;
use stampede_hedge::{Delay, Hedge, HedgeLayer, HedgePolicy};
use stampede_load_shed::{LoadShed, LoadShedLayer, Priority, Sample, Settings};
use stampede_rate_limit::{Quota, RateLimiter};
use stampede_resilience::{Destination, DestinationPolicy, Meaning};
use stampede_retry::{Backoff, Budget, BudgetSettings, RetryLayer, RetryPolicy, Verdict};
use tower::retry::budget::{Budget as _, TpsBudget};
use tower::{Layer, Service};

use crate::call::{Failed, Inner, measure, once};

const SECOND: Duration = Duration::from_secs(1);

/// What an answer means to a layer.
type Says<T> = fn(&Result<u64, Failed>) -> T;

pub fn all(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _guard = runtime.enter();
    ground(c);
    timeout(c);
    bulkhead(c);
    retry(c);
    rate_limit(c);
    circuit_breaker(c);
    adaptive(c);
    hedging(c);
    stack(c);
}

fn service<L>(c: &mut Criterion, group: &str, name: &str, layer: L)
where
    L: Layer<Inner>,
    L::Service: Service<u64>,
{
    let mut service = layer.layer(Inner);
    measure(c, group, name, || once(&mut service));
}

/// What nobody can be cheaper than.
fn ground(c: &mut Criterion) {
    let mut inner = Inner;
    measure(c, "ground", "empty service", || once(&mut inner));
    measure(c, "ground", "std clock", || {
        std::hint::black_box(Instant::now());
    });
    let clock = Clock::system();
    measure(c, "ground", "our clock", || {
        std::hint::black_box(clock.now());
    });
}

fn timeout(c: &mut Criterion) {
    service(c, "timeout", "ours", TimeoutLayer::try_new(SECOND).unwrap());
    service(c, "timeout", "tower", tower::timeout::TimeoutLayer::new(SECOND));
    let peer = tower_resilience::timelimiter::TimeLimiterLayer::builder().timeout_duration(SECOND).build();
    service(c, "timeout", "tower-resilience", peer);
}

pub fn ours_bulkhead() -> BulkheadLayer {
    let settings = BulkheadSettings { places: 100, waiting_max: 100, wait_max: SECOND };
    BulkheadLayer::new(Bulkhead::try_new(settings).unwrap())
}

fn bulkhead(c: &mut Criterion) {
    service(c, "bulkhead", "ours", ours_bulkhead());
    service(c, "bulkhead", "tower", tower::limit::ConcurrencyLimitLayer::new(100));
    let peer =
        tower_resilience::bulkhead::BulkheadLayer::builder().max_concurrent_calls(100).build().unwrap();
    service(c, "bulkhead", "tower-resilience", peer);
}

pub fn policy() -> RetryPolicy {
    let backoff = Backoff::try_new(Duration::from_millis(10), SECOND).unwrap();
    RetryPolicy::try_new(backoff, 3).unwrap()
}

pub fn budget() -> Budget {
    let settings = BudgetSettings { per_mille: 100, reserve: 10, min_per_second: 1 };
    Budget::try_new(settings, Clock::system()).unwrap()
}

pub fn verdict<E>(result: &Result<u64, E>) -> Verdict {
    if result.is_err() { Verdict::Again } else { Verdict::Final }
}

/// tower's retries with its budget, for errors.
#[derive(Clone)]
struct TowerPolicy(Option<std::sync::Arc<TpsBudget>>);

impl tower::retry::Policy<u64, u64, Failed> for TowerPolicy {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut u64, result: &mut Result<u64, Failed>) -> Option<Self::Future> {
        if result.is_ok() {
            if let Some(budget) = &self.0 {
                budget.deposit();
            }
            return None;
        }
        self.0.as_ref().is_none_or(|budget| budget.withdraw()).then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &u64) -> Option<u64> {
        Some(*request)
    }
}

fn retry(c: &mut Criterion) {
    service(c, "retry", "ours", RetryLayer::new(policy(), verdict::<Failed>));
    service(c, "retry", "tower", tower::retry::RetryLayer::new(TowerPolicy(None)));
    let peer = tower_resilience::retry::RetryLayer::<u64, u64, Failed>::builder().max_attempts(3).build();
    service(c, "retry", "tower-resilience", peer);

    let ours = RetryLayer::new(policy().with_budget(budget()), verdict::<Failed>);
    service(c, "retry with budget", "ours", ours);
    let tower = TowerPolicy(Some(std::sync::Arc::new(TpsBudget::default())));
    service(c, "retry with budget", "tower", tower::retry::RetryLayer::new(tower));
}

pub fn ours_limiter() -> RateLimiter<u64> {
    let many = NonZeroU32::new(1_000_000).unwrap();
    RateLimiter::try_new(Quota::try_new(many, many).unwrap(), 10_000, Clock::system()).unwrap()
}

fn rate_limit(c: &mut Criterion) {
    let (ours, mut key) = (ours_limiter(), 0);
    measure(c, "rate limit", "ours", || {
        key = (key + 1) % 1_000;
        std::hint::black_box(ours.check(&key));
    });
    let many = NonZeroU32::new(1_000_000_000).unwrap();
    let peer = governor::RateLimiter::keyed(governor::Quota::per_second(many));
    measure(c, "rate limit", "governor", || {
        key = (key + 1) % 1_000;
        std::hint::black_box(peer.check_key(&key).is_ok());
    });
}

fn outcome<E>(answer: &Result<u64, E>) -> Outcome {
    if answer.is_ok() { Outcome::Success } else { Outcome::Failure }
}

pub fn ours_breaker(trip: Trip) -> CircuitBreakerLayer<Says<Outcome>> {
    CircuitBreakerLayer::new(CircuitBreaker::new(breaker::Policy::new(trip)), outcome)
}

/// A window that many calls have filled.
fn filled(calls: u32) -> CircuitBreakerLayer<Says<Outcome>> {
    let layer = ours_breaker(Trip::rate(50, 20, 60 * SECOND).unwrap());
    let mut service = layer.layer(Inner);
    (0..calls).for_each(|_| once(&mut service));
    layer
}

fn circuit_breaker(c: &mut Criterion) {
    let group = "circuit breaker";
    service(c, group, "ours, consecutive", ours_breaker(Trip::consecutive(5).unwrap()));
    service(c, group, "ours, rate", ours_breaker(Trip::rate(50, 20, 10 * SECOND).unwrap()));
    service(c, group, "ours, rate, a million calls in the window", filled(1_000_000));
    let peer = tower_resilience::circuitbreaker::CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_size(100)
        .build()
        .unwrap();
    service(c, group, "tower-resilience", peer);
    let policy = failsafe::failure_policy::consecutive_failures(5, failsafe::backoff::constant(SECOND));
    let peer = failsafe::Config::new().failure_policy(policy).build();
    let mut inner = Inner;
    measure(c, group, "failsafe", || {
        use failsafe::futures::CircuitBreaker as _;
        let mut cx = Context::from_waker(Waker::noop());
        let answer = pin!(peer.call(inner.call(std::hint::black_box(7)))).poll(&mut cx);
        assert!(matches!(std::hint::black_box(answer), Poll::Ready(Ok(_))));
    });
}

pub fn ours_shed() -> LoadShedLayer<fn(&u64) -> Priority, Says<Sample>> {
    LoadShedLayer::new(
        LoadShed::new(Settings::default(), Clock::system()),
        |_| Priority::MOST_URGENT,
        |answer| if answer.is_ok() { Sample::Success } else { Sample::Ignore },
    )
}

fn adaptive(c: &mut Criterion) {
    use tower_resilience::adaptive::{AdaptiveLimiterLayer, Aimd, Vegas};
    let group = "adaptive limit";
    service(c, group, "ours", ours_shed());
    let aimd = Aimd::builder().initial_limit(100).min_limit(10).max_limit(200).build().unwrap();
    service(c, group, "tower-resilience, AIMD", AdaptiveLimiterLayer::new(aimd));
    let vegas = Vegas::builder().initial_limit(100).build().unwrap();
    service(c, group, "tower-resilience, Vegas", AdaptiveLimiterLayer::new(vegas));
}

pub fn ours_hedge() -> HedgeLayer<Says<hedge::Verdict>> {
    let delay = Delay::quantile(950, Duration::from_millis(5), SECOND, 50).unwrap();
    let hedge = Hedge::new(HedgePolicy::try_new(2, delay).unwrap(), budget(), Clock::system());
    HedgeLayer::new(
        hedge,
        |answer| if answer.is_ok() { hedge::Verdict::Done } else { hedge::Verdict::Another },
    )
}

fn hedging(c: &mut Criterion) {
    service(c, "hedge", "ours", ours_hedge());
    let peer = tower_resilience::hedge::HedgeLayer::builder().delay(SECOND).max_hedged_attempts(2).build();
    service(c, "hedge", "tower-resilience", peer);
}

pub fn destination() -> Destination<Safe> {
    Destination::try_new("bench", &DestinationPolicy::DEFAULT, Clock::system()).unwrap()
}

pub fn means(answer: Result<&u64, &Failed>) -> Meaning {
    if answer.is_ok() { Meaning::Answer } else { Meaning::Unavailable(None) }
}

fn stack(c: &mut Criterion) {
    service(c, "whole stack", "ours, once", destination().single(means));
    service(c, "whole stack", "ours, repeating", destination().repeating(means));
    service(c, "whole stack", "ours, hedging", destination().hedging(means));
}
