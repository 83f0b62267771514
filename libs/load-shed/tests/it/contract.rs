//! What every layer of ours keeps, and what this one adds.

use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use stampede_deadline::Clock;
use stampede_load_shed::{
    Error, Limits, LoadShed, LoadShedLayer, Priority, Reason, Sample, Settings, Waiting,
};
use stampede_testkit::Spans;
use stampede_testkit::layer::{Ask, Failed, Probe, ask, keeps_the_contract, shares_its_state};
use tokio::time::advance;
use tower::{Layer, Service, ServiceExt};

type Ours = LoadShedLayer<fn(&Ask) -> Priority, fn(&Result<(), Failed>) -> Sample>;

fn shed(limit: u32, queue_max: usize) -> LoadShed {
    let limits = Limits { min: limit, initial: limit, max: limit };
    let settings = Settings::try_new(limits, Waiting { queue_max, ..Waiting::default() }).unwrap();
    LoadShed::new(settings, Clock::tokio())
}

fn layer(shed: LoadShed) -> Ours {
    LoadShedLayer::new(
        shed,
        |ask| if *ask == Ask::Hang { Priority::LEAST_URGENT } else { Priority::MOST_URGENT },
        |result| if result.is_ok() { Sample::Success } else { Sample::Ignore },
    )
}

#[tokio::test(start_paused = true)]
async fn it_keeps_the_contract_of_a_layer() {
    keeps_the_contract(|| layer(shed(1, 0))).await;
    keeps_the_contract(|| layer(shed(1, 5))).await;
}

#[tokio::test(start_paused = true)]
async fn its_state_is_everybodys() {
    let shed = shed(1, 0);
    shares_its_state(&layer(shed.clone()), async |service| {
        let mut hanging = Box::pin(service.ready().await.unwrap().call(Ask::Hang));
        assert!(hanging.as_mut().now_or_never().is_none());
        // For as long as the process lives.
        std::mem::forget(hanging);
    })
    .await;
    assert_eq!(shed.snapshot().in_flight, 1);
    assert_eq!(shed.snapshot().shed(Priority::MOST_URGENT, Reason::Full), 3);
}

/// Panics when it is called without having said that it is ready. A clone has yet to be asked.
#[derive(Default)]
struct Strict {
    asked: bool,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Service<Ask> for Strict {
    type Response = ();
    type Error = Failed;
    type Future = Ready<Result<(), Failed>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.asked = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _ask: Ask) -> Self::Future {
        assert!(std::mem::take(&mut self.asked), "called without being asked");
        ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waited_uses_the_service_that_was_ready() {
    let shed = shed(1, 5);
    let mut service = layer(shed.clone()).layer(Strict::default());
    let held = shed.acquire(Priority::MOST_URGENT).await.unwrap();
    let waiting = tokio::spawn(service.ready().await.unwrap().call(Ask::Answer));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(shed.snapshot().queued, [1, 0, 0, 0]);
    drop(held);
    waiting.await.unwrap().unwrap();
    ask(&mut service, Ask::Answer).await.unwrap();
    assert_eq!((shed.snapshot().in_flight, shed.snapshot().admitted), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn it_tells_its_own_refusal_from_an_error_inside() {
    let shed = shed(1, 5);
    let mut service = layer(shed.clone()).layer(Probe::default());
    assert_eq!(ask(&mut service, Ask::Fail).await, Err(Error::Inner(Failed)));
    let _held = shed.acquire(Priority::MOST_URGENT).await;
    let Err(Error::Shed(refusal)) = ask(&mut service, Ask::Answer).await else { panic!("not shed") };
    assert_eq!((refusal.class, refusal.reason), (Priority::MOST_URGENT, Reason::Late));
    assert_eq!(shed.snapshot().ignored, 1);
}

#[tokio::test(start_paused = true)]
async fn a_trace_shows_who_waited_and_who_was_sent_away() {
    let (spans, shed) = (Spans::record(), shed(1, 1));
    let held = shed.acquire(Priority::LEAST_URGENT).await.unwrap();
    assert_eq!(spans.seen(), []);

    let mut waits = Box::pin(shed.acquire(Priority::LEAST_URGENT));
    assert!(waits.as_mut().now_or_never().is_none());
    shed.acquire(Priority::LEAST_URGENT).await.unwrap_err();
    advance(Duration::from_millis(3)).await;
    drop(held);
    let held = waits.await.unwrap();

    let mut evicted = Box::pin(shed.acquire(Priority::LEAST_URGENT));
    assert!(evicted.as_mut().now_or_never().is_none());
    let mut urgent = Box::pin(shed.acquire(Priority::MOST_URGENT));
    assert!(urgent.as_mut().now_or_never().is_none());
    evicted.await.unwrap_err();
    drop((held, urgent));

    let told: Vec<_> = spans
        .seen()
        .into_iter()
        .map(|seen| (seen.name, seen.lasted.as_millis(), seen.fields.get("refused").cloned()))
        .collect();
    let refused = |reason: &str| Some(reason.to_owned());
    assert_eq!(
        told,
        [
            ("shed", 0, refused("full")),
            ("admission wait", 3, None),
            ("admission wait", 0, refused("full")),
            ("admission wait", 0, None),
        ]
    );
}
