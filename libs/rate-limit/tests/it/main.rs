//! The layer: alone, and in a real server with several connections.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, Response, StatusCode};
use stampede_deadline::Clock;
use stampede_rate_limit::{Charge, Decision, Quota, RateLimitLayer, RateLimiter};
use stampede_testkit::Spans;
use stampede_testkit::layer::{Ask, Failed, Probe, ask, keeps_the_contract, shares_its_state};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::layer::layer_fn;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

fn limiter(burst: u32) -> RateLimiter<&'static str> {
    // One an hour, so that nothing comes back while a test runs.
    let quota = Quota::try_one_per(Duration::from_secs(3_600), NonZeroU32::new(burst).unwrap());
    RateLimiter::try_new(quota.unwrap(), 100, Clock::tokio()).unwrap()
}

/// The probe as an HTTP service behind the limit, and the whole as the probe is asked.
macro_rules! limited {
    ($limiter:expr) => {{
        let limit = RateLimitLayer::new(
            $limiter,
            |_: &Request<Ask>| Some(Charge::one("everybody")),
            |_: &Decision| {
                let mut refusal = Response::new(());
                *refusal.status_mut() = StatusCode::TOO_MANY_REQUESTS;
                refusal
            },
        );
        layer_fn(move |probe: Probe| {
            ServiceBuilder::new()
                .map_request(|ask: Ask| Request::new(ask))
                .map_result(|result: Result<Response<()>, Failed>| match result {
                    Ok(response) if response.status() == StatusCode::OK => Ok(()),
                    Ok(_) | Err(Failed) => Err(Failed),
                })
                .layer(limit.clone())
                .map_request(|request: Request<Ask>| *request.body())
                .map_response(|()| Response::new(()))
                .service(probe)
        })
    }};
}

#[tokio::test]
async fn it_keeps_the_contract_of_layers() {
    let quota =
        Quota::try_new(NonZeroU32::new(1_000_000).unwrap(), NonZeroU32::new(1_000_000).unwrap()).unwrap();
    let generous = || RateLimiter::try_new(quota, 100, Clock::tokio()).unwrap();
    keeps_the_contract(|| limited!(generous())).await;
}

#[tokio::test]
async fn a_quota_is_one_for_all_services_of_a_layer() {
    let layer = limited!(limiter(10));
    shares_its_state(&layer, async |service| while ask(service, Ask::Answer).await.is_ok() {}).await;
}

type Handler = tower::util::BoxCloneSyncService<Request<()>, Response<String>, Infallible>;

fn charged(
    charge: impl Fn(&Request<()>) -> Option<Charge<&'static str>> + Clone + Send + Sync + 'static,
) -> Handler {
    let handler = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new("served".to_owned())));
    let refuse = |decision: &Decision| Response::new(format!("{decision:?}"));
    Handler::new(RateLimitLayer::new(limiter(4), charge, refuse).layer(handler))
}

#[tokio::test]
async fn the_weight_of_a_request_is_charged() {
    let service = charged(|_| Some(Charge { key: "heavy", weight: NonZeroU32::new(3).unwrap() }));
    let spans = Spans::record();
    let first = service.clone().oneshot(Request::new(())).await.unwrap();
    assert_eq!(first.headers()["ratelimit"], r#""default";r=1;t=3600"#);
    assert_eq!(spans.seen(), []);
    let second = service.oneshot(Request::new(())).await.unwrap();
    assert_eq!(spans.names(), [("rate limited", None)], "a trace shows the refusal");
    assert!(second.body().starts_with("Refused"), "{}", second.body());
    assert_eq!(second.headers()["retry-after"], "7200");
}

#[tokio::test]
async fn whoever_has_no_quota_is_neither_counted_nor_told_of_one() {
    let service = charged(|_| None);
    for _ in 0..10 {
        let answer = service.clone().oneshot(Request::new(())).await.unwrap();
        assert_eq!((answer.body().as_str(), answer.headers().get("ratelimit")), ("served", None));
    }
}

#[tokio::test]
async fn a_tighter_quota_further_in_has_spoken() {
    let inner = service_fn(async |_: Request<()>| {
        let mut answer = Response::new(String::new());
        answer.headers_mut().insert("ratelimit", r#""tight";r=0;t=9"#.parse().unwrap());
        Ok::<_, Infallible>(answer)
    });
    let charge = |_: &Request<()>| Some(Charge::one("somebody"));
    let layer = RateLimitLayer::new(limiter(4), charge, |_: &Decision| Response::new(String::new()));
    let answer = layer.layer(inner).oneshot(Request::new(())).await.unwrap();
    assert_eq!(answer.headers()["ratelimit"], r#""tight";r=0;t=9"#);
}

/// axum applies a layer again for every connection and route.
#[tokio::test]
async fn several_connections_to_a_real_router_share_one_quota() {
    let refuse = |_: &Decision| {
        let mut refusal = Response::new(Body::empty());
        *refusal.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        refusal
    };
    let charge = |_: &Request<Body>| Some(Charge::one("everybody"));
    let router = Router::new().route("/", get(|| async { "served" })).layer(RateLimitLayer::new(
        limiter(4),
        charge,
        refuse,
    ));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(get_over_a_new_connection(address).await);
    }
    server.abort();
    let served = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 200")).count();
    assert_eq!(served, 4);
    let refused = &answers[5];
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    for field in
        [r#"ratelimit-policy: "default";q=4;w=14400"#, r#"ratelimit: "default";r=0;t="#, "retry-after: "]
    {
        assert!(refused.contains(field), "{refused}");
    }
}

async fn get_over_a_new_connection(address: SocketAddr) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}
