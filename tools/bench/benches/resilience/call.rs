//! How one call is made and measured.

use std::alloc::System;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use criterion::Criterion;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::Service;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Calls over which allocations are counted.
const COUNTED: usize = 1_000;

/// The inner service of everybody: answers at once.
#[derive(Clone, Copy, Debug)]
pub struct Inner;

/// Its error, which it never has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Failed {}

impl Service<u64> for Inner {
    type Response = u64;
    type Error = Failed;
    type Future = Ready<Result<u64, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

/// One call that is ready at the first poll.
#[inline]
pub fn once<S: Service<u64>>(service: &mut S) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let answer = pin!(service.call(black_box(7))).poll(&mut cx);
    assert!(matches!(black_box(answer), Poll::Ready(Ok(_))));
}

/// Measures `call` under `group/name`, and counts what it allocates.
pub fn measure(c: &mut Criterion, group: &str, name: &str, mut call: impl FnMut()) {
    // A map that grows with its first keys is not what a call costs.
    for _ in 0..COUNTED {
        call();
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..COUNTED {
        call();
    }
    note_allocations(group, name, region.change().allocations);
    c.benchmark_group(group).bench_function(name, |bencher| bencher.iter(&mut call));
}

/// Where the table finds how much was allocated, beside criterion's own figures.
fn note_allocations(group: &str, name: &str, in_all: usize) {
    static SEEN: Mutex<Vec<(String, f64)>> = Mutex::new(Vec::new());
    let mut seen = SEEN.lock().unwrap();
    let a_call = f64::from(u32::try_from(in_all).unwrap()) / f64::from(u32::try_from(COUNTED).unwrap());
    seen.push((format!("{group}/{name}"), a_call));
    let json: serde_json::Map<_, _> = seen.iter().map(|(id, count)| (id.clone(), (*count).into())).collect();
    let file = PathBuf::from(std::env::var_os("CRITERION_HOME").unwrap_or("target/criterion".into()));
    std::fs::create_dir_all(&file).unwrap();
    std::fs::write(file.join("allocations.json"), serde_json::to_vec_pretty(&json).unwrap()).unwrap();
}
