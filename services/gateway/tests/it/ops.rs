//! What only operators may do.

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use stampede_bus::dead_letter_header as header;
use stampede_contracts::Code;

use crate::support::{OPERATOR_TOKEN, Stage, problem};

#[tokio::test]
async fn only_the_operators_token_opens_their_calls() {
    let stage = Stage::start().await;
    let session = stage.session().await;
    for (method, path) in [(Method::POST, "/v1/ops/shows"), (Method::GET, "/v1/ops/dead-letters")] {
        let ask = |token: Option<&str>| {
            let request = stage.request(method.clone(), path);
            token.into_iter().fold(request, RequestExt::bearer).send()
        };
        assert_eq!(problem(ask(None).await.unwrap()).await.code, Code::Unauthenticated);
        assert_eq!(problem(ask(Some("a-guess")).await.unwrap()).await.code, Code::Unauthenticated);
        assert_eq!(problem(ask(Some(&session)).await.unwrap()).await.code, Code::Forbidden);
        // The other header lifts limits and opens nothing.
        let lifted = stage
            .request(method.clone(), path)
            .header("operator-token", OPERATOR_TOKEN)
            .send()
            .await
            .unwrap();
        assert_eq!(problem(lifted).await.code, Code::Unauthenticated);
    }
}

trait RequestExt {
    fn bearer(self, token: &str) -> Self;
}

impl RequestExt for reqwest::RequestBuilder {
    fn bearer(self, token: &str) -> Self {
        self.bearer_auth(token)
    }
}

#[tokio::test]
async fn a_large_show_reaches_the_catalog() {
    let stage = Stage::start().await;
    let catalog = Router::new()
        .route("/v1/ops/shows", post(async |body: Bytes| (StatusCode::CREATED, body.len().to_string())))
        .layer(axum::extract::DefaultBodyLimit::disable());
    stage.play("catalog", catalog).await;
    let request = stage.post("/v1/ops/shows").bearer_auth(OPERATOR_TOKEN).body(vec![b' '; 1024 * 1024]);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.text().await.unwrap(), "1048576");
}

async fn letters(stage: &Stage, query: &str) -> Value {
    let path = format!("/v1/ops/dead-letters{query}");
    let response = stage.get(&path).bearer_auth(OPERATOR_TOKEN).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.unwrap()
}

#[tokio::test]
async fn dead_letters_are_listed_page_by_page() {
    let stage = Stage::start().await;
    assert_eq!(letters(&stage, "").await, json!({"items": []}));
    for number in 1..=5 {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(header::REASON, "no%20such%20step");
        headers.insert(header::SUBJECT, "cmd.payments.authorise");
        headers.insert(header::TIME, "2027-01-31T20:00:00.000Z");
        headers.insert("ce-id", format!("event-{number}"));
        let jetstream = stage.operator.jetstream();
        let stored =
            jetstream.publish_with_headers("dlq.payments.payments", headers, "{}".into()).await.unwrap();
        stored.await.unwrap();
    }
    let dead = stage.operator.jetstream().get_stream("DLQ").await.unwrap();
    dead.delete_message(2).await.unwrap();

    let first = letters(&stage, "?limit=2").await;
    let item = json!({
        "sequence": 1,
        "subject": "dlq.payments.payments",
        "origin_subject": "cmd.payments.authorise",
        "reason": "no such step",
        "event_id": "event-1",
        "at": "2027-01-31T20:00:00.000Z",
    });
    assert_eq!(first["items"][0], item);
    assert_eq!((&first["items"][1]["sequence"], &first["next_cursor"]), (&json!(3), &json!("3")));
    let second = letters(&stage, "?limit=2&cursor=3").await;
    assert_eq!(second["items"][1]["sequence"], 5);
    assert!(second.get("next_cursor").is_none(), "{second}");
    assert_eq!(letters(&stage, "?cursor=5").await, json!({"items": []}));
    assert_eq!(letters(&stage, "?cursor=99").await, json!({"items": []}));
}
