//! Server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::StreamExt;
use reqwest::StatusCode;
use stampede_contracts::{Code, LobbyTicket};
use stampede_testkit::eventually;
use tokio::sync::broadcast;

use crate::support::{PATIENCE, Stage, problem};

type Events = Arc<broadcast::Sender<&'static str>>;

async fn follow(State(events): State<Events>) -> Response {
    let heard = futures::stream::unfold(events.subscribe(), async |mut events| {
        let event = events.recv().await.ok()?;
        Some((Ok::<_, Infallible>(Bytes::from(event)), events))
    });
    let first = futures::stream::iter([Ok::<_, Infallible>(Bytes::from("id: 1\ndata: first\n\n"))]);
    let headers = [("content-type", "text/event-stream"), ("cache-control", "no-cache")];
    (headers, Body::from_stream(first.chain(heard))).into_response()
}

async fn stage_with_lobby(keys: &[(&'static str, &str)]) -> (Stage, Events, String) {
    let stage = Stage::start_with(keys).await;
    let events: Events = Arc::new(broadcast::channel(16).0);
    let refuse = async || {
        let body =
            r#"{"type":"/problems/place_not_found","title":"t","status":404,"code":"place_not_found"}"#;
        (StatusCode::NOT_FOUND, [("content-type", "application/problem+json")], body)
    };
    let lobby = Router::new()
        .route("/v1/lobby/{place}/events", get(follow))
        .fallback(refuse)
        .with_state(Arc::clone(&events));
    stage.play("lobby", lobby).await;
    let token = stage.session().await;
    (stage, events, token)
}

async fn open(stage: &Stage, token: &str) -> reqwest::Response {
    let path = format!("/v1/lobby/{}/events", LobbyTicket::new());
    stage.get(&path).bearer_auth(token).header("deadline-ms", "5000").send().await.unwrap()
}

#[tokio::test]
async fn events_pass_as_they_come_and_outlive_the_deadline() {
    let (stage, events, token) = stage_with_lobby(&[]).await;
    let hangs = Router::new().fallback(async |request: Request| {
        if !request.uri().to_string().contains("probe") {
            std::future::pending::<()>().await;
        }
    });
    stage.play("orders", hangs).await;
    let path = format!("/v1/lobby/{}/events", LobbyTicket::new());
    let request = stage.get(&path).bearer_auth(&token).header("deadline-ms", "2000");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let mut chunks = response.bytes_stream();
    assert_eq!(chunks.next().await.unwrap().unwrap(), "id: 1\ndata: first\n\n");
    // A request that began later and had more time has run out of it.
    let later =
        stage.get("/v1/orders").bearer_auth(&token).header("deadline-ms", "3000").send().await.unwrap();
    assert!(later.status().is_server_error());
    events.send("data: later\n\n").unwrap();
    assert_eq!(chunks.next().await.unwrap().unwrap(), "data: later\n\n");
}

#[tokio::test]
async fn only_so_many_streams_are_open_and_one_that_ends_makes_room() {
    let (stage, _events, token) = stage_with_lobby(&[("STREAMS_MAX", "2")]).await;
    let first = open(&stage, &token).await;
    let _second = open(&stage, &token).await;
    let third = open(&stage, &token).await;
    assert_eq!(third.headers()["retry-after"], "1");
    assert_eq!(problem(third).await.code, Code::Busy);
    drop(first);
    eventually(PATIENCE, async || open(&stage, &token).await.status() == StatusCode::OK).await;
}

#[tokio::test]
async fn nobody_takes_all_the_places() {
    let (stage, _events, token) = stage_with_lobby(&[("STREAMS_PER_CLIENT_MAX", "1")]).await;
    let another = stage.session().await;
    let _mine = open(&stage, &token).await;
    assert_eq!(problem(open(&stage, &token).await).await.code, Code::Busy);
    assert_eq!(open(&stage, &another).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn streams_end_when_the_gateway_drains() {
    let (stage, _events, token) = stage_with_lobby(&[]).await;
    let mut chunks = open(&stage, &token).await.bytes_stream();
    assert!(chunks.next().await.unwrap().is_ok());
    stage.draining.cancel();
    let end = tokio::time::timeout(PATIENCE, chunks.next()).await.unwrap();
    assert!(end.is_none(), "an orderly end: {end:?}");
}

#[tokio::test]
async fn a_stream_lasts_only_so_long() {
    let (stage, _events, token) = stage_with_lobby(&[("STREAM_MAX_AGE_MS", "50")]).await;
    let text = tokio::time::timeout(PATIENCE, open(&stage, &token).await.text()).await.unwrap();
    assert_eq!(text.unwrap(), "id: 1\ndata: first\n\n");
}

#[tokio::test]
async fn a_refusal_is_no_stream() {
    let stage = Stage::start_with(&[("STREAMS_MAX", "1")]).await;
    let refuses = Router::new().fallback(async || StatusCode::NOT_FOUND);
    stage.play("lobby", refuses).await;
    let token = stage.session().await;
    for _ in 0..3 {
        let response = open(&stage, &token).await;
        assert_eq!(problem(response).await.code, Code::NotFound, "and takes no place");
    }
}
