//! What a trace shows of a bulkhead.

use std::time::Duration;

use futures::FutureExt;
use stampede_testkit::Spans;
use tracing::{Instrument, info_span};

use crate::{MS, bulkhead};

#[tokio::test(start_paused = true)]
async fn waits_and_refusals_are_spans_and_a_free_place_is_none() {
    let spans = Spans::record();
    let bulkhead = bulkhead(1, 1);
    let held = bulkhead.acquire().await.unwrap();
    assert_eq!(spans.seen(), []);

    let caller = info_span!("caller");
    let mut waits = Box::pin(bulkhead.acquire().instrument(caller.clone()));
    assert!(waits.as_mut().now_or_never().is_none());
    assert!(caller.in_scope(|| bulkhead.acquire().now_or_never()).unwrap().is_err());
    tokio::time::advance(30 * MS).await;
    drop(held);
    drop(waits.await.unwrap());
    drop(caller);

    let seen = spans.seen();
    let names = [("bulkhead full", Some("caller")), ("bulkhead wait", Some("caller")), ("caller", None)];
    assert_eq!(spans.names(), names);
    assert_eq!((seen[0].lasted, seen[1].lasted), (Duration::ZERO, 30 * MS));
    assert_eq!(seen[0].fields["otel.status_code"], "ERROR");
    assert_eq!(seen[1].fields.get("otel.status_code"), None);
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_vain_is_an_error() {
    let spans = Spans::record();
    let bulkhead = bulkhead(1, 1);
    let _held = bulkhead.acquire().await.unwrap();
    bulkhead.acquire().await.unwrap_err();
    let seen = spans.seen();
    assert_eq!((seen[0].name, seen[0].lasted), ("bulkhead wait", 100 * MS));
    assert_eq!(seen[0].fields["otel.status_code"], "ERROR");
}
