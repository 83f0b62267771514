//! A trace shows every layer that did something, inside of the span of whoever called, and none that did nothing.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use stampede_contracts::function::Safe;
use stampede_resilience::Error;
use stampede_testkit::Spans;
use stampede_testkit::layer::Failed;
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn};
use tracing::{Instrument, info_span};

use crate::{MS, changed, destination, means};

#[tokio::test(start_paused = true)]
async fn every_layer_that_acts_is_in_the_trace_of_its_caller() {
    let destination = destination::<Safe>(&changed(|policy| {
        policy.bulkhead.places = 1;
        policy.breaker.min_calls = 30;
    }));
    let asked = AtomicU32::new(0);
    let attempt = service_fn(|script: &'static [Result<u64, ()>]| {
        let nth = asked.fetch_add(1, Ordering::SeqCst) as usize;
        let attempt = async move {
            let Ok(millis) = script[nth % script.len()] else { return Err(Failed) };
            sleep(MS * millis as u32).await;
            Ok(())
        };
        attempt.instrument(info_span!("attempt"))
    });
    let spans = Spans::record();
    let seen_before = Cell::new(0);
    let call = async |script| {
        asked.store(0, Ordering::SeqCst);
        let stack = destination.hedging(means::<()>).layer(attempt);
        let answer = stack.oneshot(script).instrument(info_span!("caller")).await;
        let names = spans.names();
        (answer, names[seen_before.replace(names.len())..].to_vec())
    };
    let (first, caller) = (("attempt", Some("caller")), ("caller", None));
    let hedge = ("hedge", Some("caller"));

    assert_eq!(call(&[Ok(0)]).await, (Ok(()), vec![first, caller]));

    // What failed is tried beside at once, and when that has failed as well, after a pause.
    let tried_beside = [first, ("attempt", Some("hedge")), hedge];
    let tried_again = [("retry pause", Some("caller")), first, caller];
    assert_eq!(call(&[Err(()), Err(()), Ok(0)]).await, (Ok(()), [tried_beside, tried_again].concat()));

    // The attempt beside a slow one waits for the only place until it is given up.
    let crowded = vec![first, ("bulkhead wait", Some("hedge")), hedge, caller];
    assert_eq!(call(&[Ok(90), Ok(0)]).await, (Ok(()), crowded));

    let (answer, names) = call(&[Ok(5_000)]).await;
    assert_eq!(answer, Err(Error::TimedOut));
    assert!(names.contains(&("timed out", Some("caller"))), "{names:?}");

    let refused = loop {
        let (answer, names) = call(&[Err(())]).await;
        if matches!(answer, Err(Error::Open(_))) {
            break names;
        }
    };
    assert!(refused.contains(&("circuit open", Some("caller"))), "{refused:?}");
}
