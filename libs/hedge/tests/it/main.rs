//! The contract of a layer, and a real server.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use axum::routing::get;
use stampede_deadline::Clock;
use stampede_hedge::{Delay, Hedge, HedgeLayer, HedgePolicy, Verdict};
use stampede_retry::{Budget, BudgetSettings};
use stampede_testkit::Spans;
use stampede_testkit::layer::{Failed, keeps_the_contract};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer, ServiceExt, layer::layer_fn, service_fn};
use tracing::{Instrument, info_span};

fn hedge(delay: Duration) -> Hedge {
    let policy = HedgePolicy::try_new(2, Delay::fixed(delay).unwrap()).unwrap();
    let settings = BudgetSettings { per_mille: 100, reserve: 10, min_per_second: 0 };
    Hedge::new(policy, Budget::try_new(settings, Clock::system()).unwrap(), Clock::system())
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let verdict = |answer: &Result<(), Failed>| match answer {
        Ok(()) => Verdict::Done,
        Err(Failed) => Verdict::Fatal,
    };
    keeps_the_contract(|| HedgeLayer::new(hedge(Duration::from_secs(60)), verdict)).await;
}

/// A request whose body is empty, so that it can be sent twice.
#[derive(Clone)]
struct Get(&'static str);

#[tokio::test]
async fn a_real_server_shares_one_hedge_among_its_connections() {
    let (hedge, made) = (hedge(Duration::from_millis(5)), Arc::new(AtomicU32::new(0)));
    let counter = Arc::clone(&made);
    // The first of every two attempts hangs.
    let handler = get(async move || match counter.fetch_add(1, Ordering::SeqCst) % 2 {
        0 => std::future::pending().await,
        _ => "second",
    });
    let verdict = |_: &Result<Response, Infallible>| Verdict::Done;
    let hedged = HedgeLayer::new(hedge.clone(), verdict);
    let empty_bodies = layer_fn(move |inner| {
        let to_request = |Get(path): Get| Request::get(path).body(Body::empty()).unwrap_or_default();
        let hedged = hedged.layer(tower::util::MapRequest::new(inner, to_request));
        service_fn(move |_: Request<Body>| hedged.clone().oneshot(Get("/")))
    });
    let router = Router::new().route("/", handler).layer(empty_bodies);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    for _ in 0..4 {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        connection.write_all(request).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("second"), "{answer}");
    }
    let snapshot = hedge.snapshot();
    assert_eq!((snapshot.hedged, snapshot.won, made.load(Ordering::SeqCst)), (4, 4, 8));
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_trace_shows_the_attempts_beside_the_first_and_which_of_them_won() {
    let spans = Spans::record();
    let made = AtomicU32::new(0);
    let service = service_fn(|millis: [u64; 2]| {
        let nth = made.fetch_add(1, Ordering::SeqCst) % 2;
        let answer = async move {
            tokio::time::sleep(Duration::from_millis(millis[nth as usize])).await;
            Ok::<_, Infallible>(())
        };
        answer.instrument(info_span!("attempt"))
    });
    let policy = HedgePolicy::try_new(2, Delay::fixed(Duration::from_millis(20)).unwrap()).unwrap();
    let settings = BudgetSettings { per_mille: 0, reserve: 10, min_per_second: 0 };
    let hedge = Hedge::new(policy, Budget::try_new(settings, Clock::tokio()).unwrap(), Clock::tokio());
    let verdict = |_: &Result<(), Infallible>| Verdict::Done;
    let hedged = HedgeLayer::new(hedge, verdict).layer(service);

    hedged.clone().oneshot([10, 10]).await.unwrap();
    assert_eq!(spans.names(), [("attempt", None)], "it was fast enough");
    made.store(0, Ordering::SeqCst);
    hedged.clone().oneshot([90, 10]).await.unwrap();
    hedged.oneshot([50, 90]).await.unwrap();

    let hedges: Vec<_> = spans.seen().into_iter().filter(|seen| seen.name == "hedge").collect();
    let told =
        |nth: usize| (hedges[nth].lasted.as_millis(), hedges[nth].fields.get("won").map(String::as_str));
    assert_eq!((hedges.len(), told(0), told(1)), (2, (10, Some("true")), (30, None)));
    let inside = spans.names().iter().filter(|span| **span == ("attempt", Some("hedge"))).count();
    assert_eq!(inside, 2, "what an attempt does is shown inside of it");
}
