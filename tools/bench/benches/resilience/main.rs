//! What a call costs that goes through a pattern and succeeds at once: ours and the peers', in one run.
//!
//! The same inner service everywhere; layers are made once; nobody listens to events. A call is a look whether the
//! service is ready, the call, and one poll of its future. Allocations are counted apart from the time.

mod call;
mod contention;
mod patterns;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group! {
    name = resilience;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(60);
    targets = patterns::all, contention::all
}
criterion_main!(resilience);
