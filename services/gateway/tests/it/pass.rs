//! What passes through, and what does not.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use reqwest::{Method, StatusCode};
use stampede_contracts::{Code, OrderId, ShowId};
use stampede_testkit::{eventually, free_port};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::support::{PATIENCE, Stage, problem};

/// What a player saw.
#[derive(Debug, Clone)]
struct Seen {
    method: Method,
    target: String,
    headers: http::HeaderMap,
    body: Vec<u8>,
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// Writes down every request and answers with `answer`.
fn recorder(answer: fn() -> Response) -> (Router, Log) {
    let log = Log::default();
    let record = move |State(log): State<Log>, request: Request| async move {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        let target = parts.uri.to_string();
        if !target.contains("probe") {
            log.lock().unwrap().push(Seen { method: parts.method, target, headers: parts.headers, body });
        }
        answer()
    };
    (Router::new().fallback(record).with_state(Arc::clone(&log)), log)
}

fn last(log: &Log) -> Seen {
    log.lock().unwrap().last().cloned().unwrap()
}

/// Bytes that any reformatting would change.
const ODD: &[u8] = b"{ \"b\":1.0e2,\t\"a\": \"\\u00fc\xc3\xbc\", \"b\": 2 }\r\n\n";

fn odd() -> Response {
    let mut response = Body::from(ODD).into_response();
    *response.status_mut() = StatusCode::ACCEPTED;
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("location", "/v1/orders/x"),
        ("retry-after", "7"),
        ("etag", "\"1\""),
        ("x-internal", "secret"),
        ("server", "orders/1.2.3"),
        ("set-cookie", "a=b"),
        ("keep-alive", "timeout=5"),
    ] {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

#[tokio::test]
async fn bytes_pass_unchanged_both_ways() {
    let stage = Stage::start().await;
    let (orders, log) = recorder(odd);
    stage.play("orders", orders).await;
    let token = stage.session().await;
    let request =
        stage.post("/v1/orders?x=%C3%BC&y=a+b").bearer_auth(&token).header("idempotency-key", "\"k-1\"");
    let response = request.header("content-type", "application/json").body(ODD).send().await.unwrap();

    let seen = last(&log);
    assert_eq!(seen.body, ODD);
    assert_eq!((seen.method, seen.target.as_str()), (Method::POST, "/v1/orders?x=%C3%BC&y=a+b"));
    assert_eq!(seen.headers["idempotency-key"], "\"k-1\"");
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/json; charset=utf-8");
    assert_eq!(
        (&headers["location"], &headers["retry-after"]),
        (&"/v1/orders/x".parse().unwrap(), &"7".parse().unwrap())
    );
    for hidden in ["x-internal", "server", "set-cookie", "keep-alive"] {
        assert!(!headers.contains_key(hidden), "{hidden}");
    }
    assert_eq!(response.bytes().await.unwrap(), ODD);
}

#[tokio::test]
async fn of_the_head_only_the_list_passes_and_the_door_speaks_for_itself() {
    let stage = Stage::start().await;
    let (orders, log) = recorder(|| "{}".into_response());
    stage.play("orders", orders).await;
    let token = stage.session().await;
    let client_trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let response = stage
        .get("/v1/orders")
        .bearer_auth(&token)
        .header("stampede-session", "ses_0192f0c1a2b37c4d8e5f60718293a4b5")
        .header("stampede-class", "pay")
        .header("traceparent", format!("00-{client_trace}-00f067aa0ba902b7-01"))
        .header("deadline-at", "1")
        .header("deadline-ms", "4000")
        .header("x-anything", "1")
        .header("cookie", "a=b")
        .header("order-secret", "s3cret")
        .header("te", "trailers")
        .header("accept-language", "da")
        .header("connection", "Accept-Language, x-anything")
        .send()
        .await
        .unwrap();
    let seen = last(&log).headers;
    let session = seen["stampede-session"].to_str().unwrap();
    assert!(session.starts_with("ses_") && session != "ses_0192f0c1a2b37c4d8e5f60718293a4b5");
    assert_eq!(seen.get_all("stampede-session").iter().count(), 1);
    assert_eq!(seen["stampede-class"], "pay");
    assert_eq!(seen["order-secret"], "s3cret");
    let left: u64 = seen["deadline-ms"].to_str().unwrap().parse().unwrap();
    assert!((1..4000).contains(&left), "{left} ms are left of 4000");
    for stripped in ["accept-language", "authorization", "x-anything", "cookie", "te", "deadline-at"] {
        assert!(!seen.contains_key(stripped), "{stripped}");
    }
    let inside = seen["traceparent"].to_str().unwrap();
    let outside = response.headers()["traceparent"].to_str().unwrap();
    assert_eq!(inside.split('-').nth(1), outside.split('-').nth(1), "one trace on both sides of the door");
    assert!(!inside.contains(client_trace), "and not the client's");
}

#[tokio::test]
async fn a_client_can_only_lower_its_priority() {
    let stage = Stage::start().await;
    let (orders, orders_log) = recorder(|| "{}".into_response());
    let (catalog, catalog_log) = recorder(|| "{}".into_response());
    stage.play("orders", orders).await;
    stage.play("catalog", catalog).await;
    let token = stage.session().await;
    let cases = [
        ("/v1/orders", "u=0", "pay"),
        ("/v1/orders", "u=5", "join"),
        ("/v1/orders", "u=7, i", "browse"),
        ("/v1/orders", "nonsense", "pay"),
        ("/v1/shows", "u=0", "browse"),
    ];
    for (path, wish, expected) in cases {
        stage.get(path).bearer_auth(&token).header("priority", wish).send().await.unwrap();
        let log = if path == "/v1/orders" { &orders_log } else { &catalog_log };
        assert_eq!(last(log).headers["stampede-class"], expected, "{path} {wish}");
    }
}

#[tokio::test]
async fn deadlines_are_read_clamped_and_defaulted() {
    let stage = Stage::start_with(&[("DEADLINE_MIN_MS", "5000")]).await;
    let (orders, log) = recorder(|| "{}".into_response());
    stage.play("orders", orders).await;
    let token = stage.session().await;
    let left = async |asked: Option<&str>| -> u64 {
        let request = stage.post("/v1/orders").bearer_auth(&token).header("idempotency-key", "k").body("{}");
        let request = asked.into_iter().fold(request, |request, asked| request.header("deadline-ms", asked));
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
        last(&log).headers["deadline-ms"].to_str().unwrap().parse().unwrap()
    };
    assert!((5_000..=10_000).contains(&left(None).await));
    assert!((20_000..=30_000).contains(&left(Some("600000")).await));
    assert!((4_000..=8_000).contains(&left(Some("8000")).await));
    assert!((2_000..=5_000).contains(&left(Some("1")).await), "there is time for an answer");
    // A function that answers at once is given no more time than it may take.
    let (catalog, log) = recorder(|| "{}".into_response());
    stage.play("catalog", catalog).await;
    assert_eq!(stage.get("/v1/shows").send().await.unwrap().status(), StatusCode::OK);
    let left: u64 = last(&log).headers["deadline-ms"].to_str().unwrap().parse().unwrap();
    assert!((500..=2_000).contains(&left), "{left}");
    for wrong in ["0", "-1", "soon", "1.5", "600001", "99999999999999999999", " ", "1e3"] {
        let response = stage.get("/v1/shows").header("deadline-ms", wrong).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{wrong}");
        assert_eq!(problem(response).await.code, Code::DeadlineMalformed, "{wrong}");
    }
}

#[tokio::test]
async fn nobody_there_is_503_and_nothing_heard_is_504() {
    let stage = Stage::start().await;
    let response = stage.get("/v1/shows").send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(problem(response).await.code, Code::Unavailable);

    let silent = Router::new().fallback(async |request: Request| {
        if !request.uri().to_string().contains("probe") {
            std::future::pending::<()>().await;
        }
    });
    stage.play("catalog", silent).await;
    let asked = Instant::now();
    let response = stage.get("/v1/shows").header("deadline-ms", "300").send().await.unwrap();
    assert!(asked.elapsed() >= Duration::from_millis(250), "{:?}", asked.elapsed());
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(response.headers().contains_key("traceparent"));
    assert_eq!(problem(response).await.code, Code::DeadlineExceeded);
    let given_up = [r#"outcome="abandoned""#, r#"outcome="out_of_time""#];
    eventually(PATIENCE, async || {
        let metrics = stage.metrics().await;
        given_up.iter().any(|outcome| metrics.contains(outcome))
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_cannot_be_reached_is_passed_over() {
    let stage = Stage::start().await;
    let (catalog, log) = recorder(|| "{}".into_response());
    stage.play("catalog", catalog).await;
    stage.announce("catalog", SocketAddr::from(([127, 0, 0, 1], free_port())));
    let both_were_tried = async || {
        let response = stage.get("/v1/shows").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        stage.metrics().await.contains(r#"outcome="unreachable""#)
    };
    eventually(PATIENCE, both_were_tried).await;
    assert!(!log.lock().unwrap().is_empty());
}

/// Takes a request and hangs up.
async fn hang_up(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
    }
}

#[tokio::test]
async fn what_breaks_off_is_asked_again_elsewhere_with_the_same_key() {
    let stage = Stage::start().await;
    let (orders, log) = recorder(|| "{}".into_response());
    stage.play("orders", orders).await;
    let broken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    stage.announce("orders", broken.local_addr().unwrap());
    tokio::spawn(hang_up(broken));
    let token = stage.session().await;
    let both_were_tried = async || {
        let request = stage.post("/v1/orders").bearer_auth(&token).header("idempotency-key", "k-7");
        assert_eq!(request.body("{}").send().await.unwrap().status(), StatusCode::OK);
        assert_eq!(last(&log).headers["idempotency-key"], "k-7");
        stage.metrics().await.contains(r#"outcome="broken""#)
    };
    eventually(PATIENCE, both_were_tried).await;
}

#[tokio::test]
async fn when_the_only_replica_breaks_off_the_outcome_is_unknown() {
    let stage = Stage::start().await;
    let broken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    stage.announce("orders", broken.local_addr().unwrap());
    tokio::spawn(hang_up(broken));
    let token = stage.session().await;
    let order = OrderId::new();
    let unknown = async || {
        let cancel =
            stage.post(&format!("/v1/orders/{order}/cancel")).bearer_auth(&token).send().await.unwrap();
        problem(cancel).await.code == Code::DeadlineExceeded
    };
    eventually(PATIENCE, unknown).await;
    let read = stage.get(&format!("/v1/orders/{order}")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(problem(read).await.code, Code::Unavailable, "a read had no outcome");
}

#[tokio::test]
async fn a_text_from_inside_stays_inside() {
    let stage = Stage::start().await;
    let fails = Router::new()
        .route(
            "/v1/shows",
            axum::routing::get(async || (StatusCode::INTERNAL_SERVER_ERROR, "panic at src/main.rs")),
        )
        .fallback(async || (StatusCode::NOT_FOUND, "nothing at /internal"));
    stage.play("catalog", fails).await;
    let response = stage.get("/v1/shows").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(problem(response).await.code, Code::Internal);
    let response = stage.get(&format!("/v1/shows/{}", ShowId::new())).send().await.unwrap();
    assert_eq!(problem(response).await.code, Code::NotFound);
}

#[tokio::test]
async fn a_problem_from_behind_passes_as_it_is() {
    let stage = Stage::start().await;
    const GONE: &str =
        r#"{"status":409,"type":"/problems/hold_gone","title":"x","code":"hold_gone","more":1}"#;
    let refuses = Router::new()
        .fallback(async || (StatusCode::CONFLICT, [("content-type", "application/problem+json")], GONE));
    stage.play("orders", refuses).await;
    let token = stage.session().await;
    let request = stage.post("/v1/orders").bearer_auth(token).header("idempotency-key", "k").body("{}");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CONFLICT);
    assert_eq!(response.text().await.unwrap(), GONE);
}

#[tokio::test]
async fn an_orders_secret_opens_it_without_a_session() {
    let stage = Stage::start().await;
    let (orders, log) = recorder(|| "{}".into_response());
    stage.play("orders", orders).await;
    let path = format!("/v1/orders/{}", OrderId::new());
    let secret = "5e".repeat(32);
    let response = stage.get(&path).header("order-secret", &secret).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!last(&log).headers.contains_key("stampede-session"));
    // A session that has ended takes nothing away from the secret.
    let response =
        stage.get(&path).bearer_auth("stp1.old.token").header("order-secret", &secret).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    for none in [stage.get(&path), stage.get(&path).header("order-secret", "of another form")] {
        assert_eq!(problem(none.send().await.unwrap()).await.code, Code::Unauthenticated);
    }
}
