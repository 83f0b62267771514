//! Two threads on one instance: what a call costs each of them, beside one thread alone.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use stampede_circuit_breaker::Trip;
use stampede_deadline::TimeoutLayer;
use stampede_retry::RetryLayer;
use tower::{Layer, Service};

use crate::call::{Failed, Inner, once};
use crate::patterns;

pub fn all(c: &mut Criterion) {
    both(c, "timeout", TimeoutLayer::try_new(Duration::from_secs(1)).unwrap());
    both(c, "bulkhead", patterns::ours_bulkhead());
    let policy = patterns::policy().with_budget(patterns::budget());
    both(c, "retry with budget", RetryLayer::new(policy, patterns::verdict::<Failed>));
    both(c, "circuit breaker, consecutive", patterns::ours_breaker(Trip::consecutive(5).unwrap()));
    let rate = Trip::rate(50, 20, Duration::from_secs(10)).unwrap();
    both(c, "circuit breaker, rate", patterns::ours_breaker(rate));
    both(c, "adaptive limit", patterns::ours_shed());
    both(c, "hedge", patterns::ours_hedge());
    both(c, "whole stack", patterns::destination().repeating(patterns::means));
    let limiter = patterns::ours_limiter();
    threads(c, "rate limit", || {
        let (limiter, mut key) = (limiter.clone(), 0);
        move || {
            key = (key + 1) % 1_000;
            std::hint::black_box(limiter.check(&key));
        }
    });
}

fn both<L>(c: &mut Criterion, name: &str, layer: L)
where
    L: Layer<Inner>,
    L::Service: Service<u64> + Clone + Send,
{
    let service = layer.layer(Inner);
    threads(c, name, || {
        let mut service = service.clone();
        move || once(&mut service)
    });
}

fn threads<C: FnMut() + Send>(c: &mut Criterion, name: &str, make: impl Fn() -> C) {
    let mut group = c.benchmark_group("contention");
    for threads in [1, 2] {
        group.bench_function(BenchmarkId::new(name, threads), |bencher| {
            bencher.iter_custom(|calls| together(threads, calls, &make));
        });
    }
}

/// The time until all threads have made so many calls each, from when they all began.
fn together<C: FnMut() + Send>(threads: usize, calls: u64, make: impl Fn() -> C) -> Duration {
    let barrier = Barrier::new(threads);
    let run = |mut call: C| {
        barrier.wait();
        let started = Instant::now();
        for _ in 0..calls {
            call();
        }
        started.elapsed()
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                let call = make();
                scope.spawn(|| run(call))
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).max().unwrap_or_default()
    })
}
