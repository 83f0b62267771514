//! Every way to say no is a problem, and none says more than it should.

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use http::StatusCode;
use reqwest::{RequestBuilder, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stampede_contracts::{Code, Problem, SessionId};
use stampede_service::extract::{Json, Path, Query, Session};
use stampede_service::{HttpLimits, stack};

use crate::{Served, node};

#[derive(Serialize, Deserialize)]
struct Order {
    quantity: u32,
}

#[derive(Deserialize)]
struct Page {
    limit: u32,
}

async fn place(Json(order): Json<Order>) -> impl IntoResponse {
    (StatusCode::CREATED, Json(order))
}

#[expect(clippy::panic, reason = "this is what is tested")]
async fn panicking() -> StatusCode {
    panic!("the password is hunter2")
}

async fn passed_on() -> Problem {
    Problem::new(Code::Unavailable).trace_id(Some("f".repeat(32)))
}

fn router() -> Router {
    let router = Router::new()
        .route("/orders", post(place).get(async |Query(page): Query<Page>| page.limit.to_string()))
        .route("/orders/{number}", get(async |Path(number): Path<u32>| number.to_string()))
        .route("/mine", get(async |Session(id): Session| id.to_string()))
        .route("/anybody", get(async |session: Option<Session>| session.is_some().to_string()))
        .route("/panic", get(panicking))
        .route("/busy", get(async || Problem::new(Code::Busy)))
        .route("/passed-on", get(passed_on))
        .route("/slow", get(std::future::pending::<()>));
    stack(router, HttpLimits::internal().body_max_bytes(100))
}

async fn served() -> Served {
    Served::start(node(&[]), router()).await
}

async fn expect(request: RequestBuilder, code: Code) -> Value {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), code.status(), "{code}");
    assert_eq!(response.headers()["content-type"], Problem::MEDIA_TYPE, "{code}");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["code"], code.as_str());
    assert_eq!(problem["status"], code.status());
    problem
}

async fn text(response: Response) -> String {
    response.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_read_are_told_why() {
    let served = served().await;
    let get = |path: &str| served.client.get(served.url(path));
    let post = |body: &str| {
        served
            .client
            .post(served.url("/orders"))
            .header("content-type", "application/json")
            .body(body.to_owned())
    };

    let created = post(r#"{"quantity": 2}"#).send().await.unwrap();
    assert_eq!((created.status().as_u16(), text(created).await.as_str()), (201, r#"{"quantity":2}"#));

    expect(post("{"), Code::MalformedRequest).await;
    let shape = expect(post(r#"{"quantity": "two"}"#), Code::MalformedRequest).await;
    assert!(shape["detail"].as_str().unwrap().contains("quantity"), "{shape}");
    expect(served.client.post(served.url("/orders")).body("{}"), Code::UnsupportedMediaType).await;
    expect(post(&format!(r#"{{"quantity": 2, "x": "{}"}}"#, "y".repeat(100))), Code::TooLarge).await;

    expect(get("/orders/seven"), Code::InvalidParameter).await;
    expect(get("/orders?limit=many"), Code::InvalidParameter).await;
    expect(get("/orders"), Code::InvalidParameter).await;
    expect(get("/orders/7").header("deadline-ms", "soon"), Code::DeadlineMalformed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_route_is_404_and_a_wrong_method_names_the_right_ones() {
    let served = served().await;
    expect(served.client.get(served.url("/nowhere")), Code::RouteNotFound).await;

    let refused = served.client.put(served.url("/orders")).send().await.unwrap();
    let mut allowed: Vec<_> = refused.headers()["allow"].to_str().unwrap().split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    expect(served.client.put(served.url("/orders")), Code::MethodNotAllowed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_readable_session_counts() {
    let served = served().await;
    let get = |path: &str| served.client.get(served.url(path));
    let session = SessionId::from_uuid(uuid::Uuid::now_v7()).to_string();

    let mine = get("/mine").header("stampede-session", &session).send().await.unwrap();
    assert_eq!(text(mine).await, session);
    expect(get("/mine"), Code::Unauthenticated).await;
    expect(get("/mine").header("stampede-session", "me"), Code::Unauthenticated).await;

    assert_eq!(text(get("/anybody").send().await.unwrap()).await, "false");
    expect(get("/anybody").header("stampede-session", "me"), Code::Unauthenticated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_faults_carry_the_trace_id_and_nothing_else() {
    let served = served().await;
    let get = |path: &str| served.client.get(served.url(path));
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";

    let panicked = expect(get("/panic").header("traceparent", parent), Code::Internal).await;
    assert_eq!(panicked["trace_id"], trace_id);
    assert!(!panicked.to_string().contains("hunter2"), "{panicked}");

    let late = expect(
        get("/slow").header("traceparent", parent).header("deadline-ms", "20"),
        Code::DeadlineExceeded,
    );
    assert_eq!(late.await["trace_id"], trace_id);

    let busy = get("/busy").header("traceparent", parent).send().await.unwrap();
    assert_eq!(busy.headers()["retry-after"], "1");
    assert_eq!(busy.json::<Value>().await.unwrap()["trace_id"], trace_id);

    let passed_on = expect(get("/passed-on").header("traceparent", parent), Code::Unavailable).await;
    assert_eq!(passed_on["trace_id"], "f".repeat(32), "an id from further behind is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_public_door_a_stranger_does_not_choose_the_trace() {
    let router = Router::new().route("/busy", get(async || Problem::new(Code::Busy)));
    let served = Served::start(node(&[]), stack(router, HttpLimits::public())).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let busy = expect(served.client.get(served.url("/busy")).header("traceparent", parent), Code::Busy).await;
    assert_eq!(busy["trace_id"].as_str().map(str::len), Some(32));
    assert_ne!(busy["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
}
