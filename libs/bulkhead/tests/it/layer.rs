//! The bulkhead as a layer.

use std::time::Duration;

use futures::FutureExt;
use http::Response;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use stampede_bulkhead::{BulkheadLayer, Error, Refused};
use stampede_testkit::layer::{Ask, Failed, Probe, ask, keeps_the_contract, shares_its_state};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::bulkhead;

#[tokio::test(start_paused = true)]
async fn it_keeps_the_contract_of_layers() {
    keeps_the_contract(|| BulkheadLayer::new(bulkhead(1, 0))).await;
    keeps_the_contract(|| BulkheadLayer::new(bulkhead(10, 10))).await;
}

#[tokio::test(start_paused = true)]
async fn places_are_shared_by_all_services_of_a_layer() {
    let bulkhead = bulkhead(2, 0);
    let layer = BulkheadLayer::new(bulkhead.clone());
    let taken = std::cell::RefCell::new(Vec::new());
    shares_its_state(&layer, async |service| {
        // Two calls that never end, and are kept.
        for _ in 0..2 {
            let call = service.ready().await.unwrap().call(Ask::Hang);
            taken.borrow_mut().push(call);
        }
    })
    .await;
    assert_eq!(bulkhead.snapshot().taken, 2);
    taken.borrow_mut().clear();
    assert_eq!(bulkhead.snapshot().taken, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_place_and_is_made_with_the_service_that_was_ready() {
    let layer = BulkheadLayer::new(bulkhead(1, 4));
    let probe = Probe::default();
    let mut service = layer.layer(probe.clone());
    let hanging = service.ready().await.unwrap().call(Ask::Hang);
    let mut waits = Box::pin(service.ready().await.unwrap().call(Ask::Answer));
    assert!(waits.as_mut().now_or_never().is_none());
    assert_eq!(probe.calls(), 1, "who waits has not been passed on");
    drop(hanging);
    assert_eq!(waits.await, Ok(()));
    assert_eq!(probe.called_unready(), 0);
    assert_eq!(ask(&mut service, Ask::Fail).await, Err(Error::Inner(Failed)));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_too_long_is_refused() {
    let mut service = BulkheadLayer::new(bulkhead(1, 4)).layer(Probe::default());
    let _hanging = service.ready().await.unwrap().call(Ask::Hang);
    assert_eq!(ask(&mut service, Ask::Answer).await, Err(Error::Refused(Refused::TimedOut)));
}

#[tokio::test(start_paused = true)]
async fn a_place_is_kept_until_the_body_has_ended() {
    let bulkhead = bulkhead(1, 0);
    let handler = service_fn(async |_: ()| Ok::<_, Failed>(Response::new(Full::new(&b"tickets"[..]))));
    let mut service = BulkheadLayer::until_body_ends(bulkhead.clone()).layer(handler);
    let answer = service.call(()).await.unwrap();
    assert_eq!(bulkhead.snapshot().taken, 1);
    let mut body = answer.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), &b"tickets"[..]);
    assert_eq!(bulkhead.snapshot().taken, 0, "a reader need not ask again after the last frame");
}

#[tokio::test(start_paused = true)]
async fn a_place_is_free_when_the_body_is_dropped_or_there_is_none() {
    let bulkhead = bulkhead(1, 0);
    let endless = service_fn(async |_: ()| {
        let frames = futures::stream::pending::<Result<http_body::Frame<&[u8]>, Failed>>();
        Ok::<_, Failed>(Response::new(StreamBody::new(frames)))
    });
    let mut service = BulkheadLayer::until_body_ends(bulkhead.clone()).layer(endless);
    let mut answer = service.call(()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(60), answer.body_mut().frame()).await.is_err());
    assert_eq!(bulkhead.snapshot().taken, 1);
    drop(answer);
    assert_eq!(bulkhead.snapshot().taken, 0);

    let empty = service_fn(async |_: ()| Ok::<_, Failed>(Response::new(Empty::<&[u8]>::new())));
    let mut service = BulkheadLayer::until_body_ends(bulkhead.clone()).layer(empty);
    let _answer = service.call(()).await.unwrap();
    assert_eq!(bulkhead.snapshot().taken, 0, "an empty body keeps nothing");
}
