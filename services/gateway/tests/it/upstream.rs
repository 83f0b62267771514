//! The layers around calls over HTTP: hedges, ejection, circuits, last copies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::extract::RawQuery;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use reqwest::StatusCode;
use serde_json::Value;
use stampede_testkit::eventually;
use tokio::net::TcpListener;

use crate::support::{OPERATOR_TOKEN, PATIENCE, Stage};

/// What the gateway says of a service.
async fn destination(stage: &Stage, name: &str) -> Value {
    let url = format!("http://{}/destinations", stage.admin);
    let all: Value = stage.client.get(url).send().await.unwrap().json().await.unwrap();
    all.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone()
}

async fn look(stage: &Stage, path: &str) -> reqwest::Response {
    stage.get(path).header("operator-token", OPERATOR_TOKEN).send().await.unwrap()
}

/// Answers as `answer` says, by the query.
fn catalog(answer: impl Fn(&str) -> Option<Response> + Clone + Send + Sync + 'static) -> Router {
    let shows = move |RawQuery(query): RawQuery| async move {
        match answer(query.as_deref().unwrap_or_default()) {
            Some(response) => response,
            None => std::future::pending().await,
        }
    };
    Router::new().route("/v1/shows", get(shows))
}

#[tokio::test]
async fn a_read_that_hangs_is_answered_by_another_replica() {
    let stage = Stage::start().await;
    // Whichever is asked first hangs.
    let asked = Arc::new(AtomicU32::new(0));
    for _ in 0..2 {
        let asked = Arc::clone(&asked);
        let replica = catalog(move |query| match query {
            "hang" if asked.fetch_add(1, Ordering::SeqCst) == 0 => None,
            _ => Some("{}".into_response()),
        });
        stage.play("catalog", replica).await;
    }
    assert_eq!(look(&stage, "/v1/shows?hang").await.status(), StatusCode::OK);
    // Twice, the second time concurrently with the first, which was abandoned.
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let catalog = destination(&stage, "catalog").await;
    assert!(catalog["hedged"].as_u64().unwrap() >= 1, "{catalog}");
}

#[tokio::test]
async fn while_no_replica_is_there_nothing_is_repeated() {
    let stage = Stage::start().await;
    for _ in 0..30 {
        let response = look(&stage, "/v1/shows").await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "1");
    }
    let catalog = destination(&stage, "catalog").await;
    assert_eq!(catalog["retry_tokens"], 20, "a replica that comes back finds the whole budget: {catalog}");
}

#[tokio::test]
async fn a_replica_that_fails_all_the_time_is_left_alone() {
    let stage = Stage::start().await;
    stage.play("catalog", catalog(|_| Some("{}".into_response()))).await;
    let broken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    stage.announce("catalog", broken.local_addr().unwrap());
    let hits = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&hits);
    tokio::spawn(async move {
        loop {
            drop(broken.accept().await.unwrap());
            counting.fetch_add(1, Ordering::SeqCst);
        }
    });
    eventually(PATIENCE, async || {
        assert_eq!(look(&stage, "/v1/shows").await.status(), StatusCode::OK);
        hits.load(Ordering::SeqCst) > 0
    })
    .await;
    for _ in 0..300 {
        assert_eq!(look(&stage, "/v1/shows").await.status(), StatusCode::OK);
    }
    assert!(stage.metrics().await.contains("stampede_gateway_replica_ejected"));
    // Without ejection about every second request would come to it first.
    assert!(hits.load(Ordering::SeqCst) < 75, "{hits:?}");
}

#[tokio::test]
async fn whoever_asks_with_too_little_time_opens_no_circuit() {
    let stage = Stage::start().await;
    let slow = catalog(|query| (query != "hang").then(|| "{}".into_response()));
    stage.play("catalog", slow).await;
    for _ in 0..40 {
        let request = stage.get("/v1/shows?hang").header("operator-token", OPERATOR_TOKEN);
        let response = request.header("deadline-ms", "20").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    }
    assert_eq!(destination(&stage, "catalog").await["circuit"], "closed");
    assert_eq!(look(&stage, "/v1/shows").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_service_that_fails_is_replaced_by_its_last_answers_and_then_not_called() {
    let stage = Stage::start().await;
    let is_well = Arc::new(AtomicU32::new(1));
    let calls = Arc::new(AtomicU32::new(0));
    let (well, counting) = (Arc::clone(&is_well), Arc::clone(&calls));
    let replica = catalog(move |_| {
        counting.fetch_add(1, Ordering::SeqCst);
        let well = well.load(Ordering::SeqCst) == 1;
        Some(if well {
            "{\"as_of\":1}".into_response()
        } else {
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        })
    });
    stage.play("catalog", replica).await;
    let fresh = look(&stage, "/v1/shows").await;
    assert!(!fresh.headers().contains_key("age"));
    // Its answer has no content, which must not take the place of the one that has.
    let url = format!("{}/v1/shows", stage.base);
    assert_eq!(stage.client.head(url).send().await.unwrap().status(), StatusCode::OK);

    is_well.store(0, Ordering::SeqCst);
    for _ in 0..60 {
        let old = look(&stage, "/v1/shows").await;
        assert_eq!(old.status(), StatusCode::OK);
        assert!(old.headers().contains_key("age") && old.headers().contains_key("cache-status"), "{old:?}");
        assert_eq!(old.text().await.unwrap(), "{\"as_of\":1}");
    }
    let unseen = look(&stage, "/v1/shows?limit=3").await;
    assert!(unseen.status().is_server_error());
    assert_eq!(destination(&stage, "catalog").await["circuit"], "open");
    assert!(calls.load(Ordering::SeqCst) < 50, "an open circuit calls nobody");
    assert!(stage.metrics().await.contains("stampede_gateway_last_copies_total"));

    is_well.store(1, Ordering::SeqCst);
    eventually(PATIENCE, async || !look(&stage, "/v1/shows").await.headers().contains_key("age")).await;
}
