//! Whatever a stranger sends: a problem with a 4xx, and nothing reaches anybody behind the door.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::extract::Request;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use stampede_contracts::inventory::{Hold, PlaceHold};
use stampede_contracts::{Code, SectionId, ShowId};

use crate::support::{OPERATOR_TOKEN, Stage, problem};

const SHOW: &str = "shw_0192f0c1a2b37c4d8e5f60718293a4b5";

struct Ground {
    stage: Stage,
    token: String,
    reached: Arc<AtomicU32>,
}

/// A door behind which everybody counts who gets through.
async fn ground() -> Ground {
    let stage =
        Stage::start_with(&[("SESSION_REQUESTS_BURST", "10000"), ("ADDRESS_REQUESTS_BURST", "10000")]).await;
    let reached = Arc::new(AtomicU32::new(0));
    let count = {
        let reached = Arc::clone(&reached);
        move |request: Request| {
            if !request.uri().to_string().contains("probe") {
                reached.fetch_add(1, Ordering::Relaxed);
            }
            std::future::ready("{}")
        }
    };
    for service in ["catalog", "lobby", "orders"] {
        stage.play(service, Router::new().fallback(count.clone())).await;
    }
    let counted = Arc::clone(&reached);
    stage
        .inventory(move |responder| {
            responder.on::<Hold, _, _>(move |_: PlaceHold, _| {
                counted.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Err(stampede_contracts::Problem::new(Code::SeatsTaken)))
            })
        })
        .await;
    let token = stage.session().await;
    Ground { stage, token, reached }
}

impl Ground {
    fn hold(&self) -> RequestBuilder {
        let request = self.stage.post(&format!("/v1/shows/{SHOW}/holds")).bearer_auth(&self.token);
        request.header("idempotency-key", "k").header("content-type", "application/json")
    }

    async fn refused(&self, request: RequestBuilder) -> Code {
        let response = request.send().await.unwrap();
        assert!(response.status().is_client_error(), "{}", response.status());
        let problem = problem(response).await;
        assert_eq!(self.reached.load(Ordering::Relaxed), 0, "{problem}");
        problem.code
    }
}

#[tokio::test]
async fn bodies_that_are_no_hold() {
    let ground = ground().await;
    let section = SectionId::new();
    let malformed = [
        String::new(),
        "{".to_owned(),
        "null".to_owned(),
        "\"\"".to_owned(),
        "{}{}".to_owned(),
        "\u{feff}{}".to_owned(),
        format!("{{\"section\":\"{section}\",\"quantity\":-1}}"),
        format!("{{\"section\":\"{section}\",\"quantity\":1.5}}"),
        format!("{{\"section\":\"{section}\",\"quantity\":99999999999999999999}}"),
        format!("{{\"section\":\"{section}\",\"quantity\":1e400}}"),
        format!("{{\"section\":\"{section}\",\"quantity\":\"2\"}}"),
        format!("{{\"section\":\"{section}\",\"quantity\":NaN}}"),
        format!("{{\"section\":\"{section}\",\"quantity\":1,\"quantity\":2}}"),
        format!("{{\"section\":\"{section}\",\"quantity\":1,\"price\":0}}"),
        "{\"section\":\"sec_1' OR 1=1 --\",\"quantity\":1}".to_owned(),
        "{\"section\":\"\u{202e}\u{0000}\u{1F3AB}\",\"quantity\":1}".to_owned(),
        "{\"section\":\"sec_\\ud800\",\"quantity\":1}".to_owned(),
        "{\"seats\":\"b1-1\"}".to_owned(),
        "{\"seats\":[\"b1-99999999\"]}".to_owned(),
        "{\"seats\":[\"b-1-1\"]}".to_owned(),
        "{\"seats\":[null]}".to_owned(),
        "[".repeat(60_000),
        format!("{{\"a\":{}1{}}}", "[".repeat(20_000), "]".repeat(20_000)),
    ];
    for body in malformed {
        let shown: String = body.chars().take(60).collect();
        assert_eq!(ground.refused(ground.hold().body(body)).await, Code::MalformedRequest, "{shown}");
    }
    assert_eq!(ground.refused(ground.hold().body(vec![0xff, 0xfe, 0x00])).await, Code::MalformedRequest);
    for body in [json!({}), json!([]), json!({"section": section, "quantity": 0}), json!({"seats": []})] {
        assert_eq!(ground.refused(ground.hold().json(&body)).await, Code::ValidationFailed, "{body}");
    }
    let spanning = ground.hold().json(&json!({"seats": ["b1-1", "b2-1"]}));
    assert_eq!(ground.refused(spanning).await, Code::SeatsSpanBlocks);
}

#[tokio::test]
async fn bodies_of_another_kind_and_size() {
    let ground = ground().await;
    let plain = |kind: &'static str| {
        let request = ground.stage.post(&format!("/v1/shows/{SHOW}/holds")).bearer_auth(&ground.token);
        request.header("idempotency-key", "k").header("content-type", kind).body("{}")
    };
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "", "application/xml; json"]
    {
        assert_eq!(ground.refused(plain(kind)).await, Code::UnsupportedMediaType, "{kind}");
    }
    let none = ground.stage.post(&format!("/v1/shows/{SHOW}/holds")).bearer_auth(&ground.token);
    let none = none.header("idempotency-key", "k");
    assert_eq!(ground.refused(none).await, Code::UnsupportedMediaType);

    let order = ground.stage.post("/v1/orders").bearer_auth(&ground.token).header("idempotency-key", "k");
    for request in [ground.hold(), order] {
        for size in [64 * 1024 + 1, 20 * 1024 * 1024] {
            let request = request.try_clone().unwrap().body(" ".repeat(size));
            assert_eq!(ground.refused(request).await, Code::TooLarge);
        }
        let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(" ".repeat(8 * 1024)));
        let request = request.body(reqwest::Body::wrap_stream(endless));
        assert_eq!(ground.refused(request).await, Code::TooLarge);
    }
    let shows =
        ground.stage.post("/v1/ops/shows").bearer_auth(OPERATOR_TOKEN).body(" ".repeat(1024 * 1024 + 1));
    assert_eq!(ground.refused(shows).await, Code::TooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_spoils_no_request_after_it() {
    let ground = ground().await;
    for _ in 0..500 {
        let large = ground.hold().body(" ".repeat(1_000_000));
        assert_eq!(ground.refused(large).await, Code::TooLarge);
        // The client would reuse the connection if it had not been told that it is closed.
        assert_eq!(ground.refused(ground.hold().body("{")).await, Code::MalformedRequest);
    }
}

#[tokio::test]
async fn keys_that_are_none() {
    let ground = ground().await;
    for path in [format!("/v1/shows/{SHOW}/holds"), "/v1/orders".to_owned()] {
        let request = || {
            let request = ground.stage.post(&path).bearer_auth(&ground.token);
            request.header("content-type", "application/json").body(json!({"seats": ["b1-1"]}).to_string())
        };
        assert_eq!(ground.refused(request()).await, Code::KeyMissing);
        let long = "k".repeat(256);
        for key in ["", "\"\"", "\"open", "two words", "k;p=1", "\u{e9}", &long] {
            let key = reqwest::header::HeaderValue::from_bytes(key.as_bytes()).unwrap();
            assert_eq!(ground.refused(request().header("idempotency-key", key)).await, Code::KeyMalformed);
        }
        let twice = request().header("idempotency-key", "a").header("idempotency-key", "b");
        assert_eq!(ground.refused(twice).await, Code::KeyMalformed);
        let large = request().header("idempotency-key", "k".repeat(20_000));
        assert_eq!(ground.refused(large).await, Code::KeyMalformed);
        let huge = request().header("idempotency-key", "k".repeat(1024 * 1024));
        assert_eq!(ground.refused(huge).await, Code::HeadTooLarge);
    }
}

#[tokio::test]
async fn passes_and_ids_that_are_none() {
    let ground = ground().await;
    for pass in ["", "\u{fc}", &"p".repeat(3_000)] {
        let pass = reqwest::header::HeaderValue::from_bytes(pass.as_bytes()).unwrap();
        let request = ground.hold().header("lobby-pass", pass).json(&json!({"seats": ["b1-1"]}));
        assert_eq!(ground.refused(request).await, Code::PassInvalid);
    }
    let ids = [
        "1",
        "-1",
        "shw_",
        "SHW_0192f0c1a2b37c4d8e5f60718293a4b5",
        "shw_0192F0C1A2B37C4D8E5F60718293A4B5",
        "ord_0192f0c1a2b37c4d8e5f60718293a4b5x",
        "hld_b01_5f60718293a4b50192f0c1a2b37c4d8e",
        "..%2f..%2fetc%2fpasswd",
        "%00",
        "%ff%fe",
        "%F0%9F%8E%AB",
        "%E2%80%AE",
        "'%20OR%201=1",
        "*",
        "rpc.inventory.any",
    ];
    let places = [
        (Method::GET, "/v1/shows/{}"),
        (Method::GET, "/v1/shows/{}/seats"),
        (Method::POST, "/v1/shows/{}/lobby"),
        (Method::POST, "/v1/shows/{}/holds"),
        (Method::GET, "/v1/lobby/{}"),
        (Method::GET, "/v1/lobby/{}/events"),
        (Method::DELETE, "/v1/lobby/{}"),
        (Method::GET, "/v1/holds/{}"),
        (Method::DELETE, "/v1/holds/{}"),
        (Method::GET, "/v1/orders/{}"),
        (Method::GET, "/v1/orders/{}/events"),
        (Method::POST, "/v1/orders/{}/cancel"),
        (Method::GET, "/v1/tickets/{}"),
    ];
    for (method, place) in places {
        for id in ids {
            let request =
                ground.stage.request(method.clone(), &place.replace("{}", id)).bearer_auth(&ground.token);
            assert_eq!(ground.refused(request).await, Code::InvalidParameter, "{method} {place} {id}");
        }
        let long = place.replace("{}", &"a".repeat(20_000));
        let request = ground.stage.request(method.clone(), &long).bearer_auth(&ground.token);
        assert_eq!(ground.refused(request).await, Code::InvalidParameter);
        let longer = place.replace("{}", &"a".repeat(60_000));
        let request = ground.stage.request(method, &longer).bearer_auth(&ground.token);
        assert_eq!(ground.refused(request).await, Code::UriTooLong);
    }
}

#[tokio::test]
async fn routes_and_methods_that_are_none() {
    let ground = ground().await;
    for path in
        ["/nothing", "/v1", "/v1/", "/v2/shows", "/v1/shows/", "//", "/v1/shows/x/y/z", "/.env", "/docs.php"]
    {
        let request = ground.stage.get(path).bearer_auth(&ground.token);
        assert_eq!(ground.refused(request).await, Code::RouteNotFound, "{path}");
    }
    for (method, path) in [
        (Method::PUT, "/v1/shows"),
        (Method::DELETE, "/v1/orders"),
        (Method::GET, "/v1/sessions"),
        (Method::PATCH, "/v1/ops/shows"),
        (Method::TRACE, "/"),
    ] {
        let request = ground.stage.request(method, path).bearer_auth(&ground.token);
        let response = request.send().await.unwrap();
        assert!(response.headers().contains_key("allow"), "{path}");
        assert_eq!(problem(response).await.code, Code::MethodNotAllowed, "{path}");
    }
    for query in
        ["?cursor=-1", "?limit=0", "?limit=101", "?limit=x", "?limit=99999999999999999999", "?cursor=%ff"]
    {
        let path = format!("/v1/ops/dead-letters{query}");
        let request = ground.stage.get(&path).bearer_auth(OPERATOR_TOKEN);
        assert_eq!(ground.refused(request).await, Code::InvalidParameter, "{query}");
    }
}

#[tokio::test]
async fn many_and_strange_header_fields() {
    let ground = ground().await;
    let show = ShowId::new();
    let request = ground.stage.get(&format!("/v1/shows/{show}"));
    let many = (0..100).fold(request, |request, n| request.header(format!("x-{n}"), "1"));
    assert_eq!(ground.refused(many).await, Code::HeadTooLarge);
    let odd = ground.hold().header("priority", reqwest::header::HeaderValue::from_bytes(b"u=\xff").unwrap());
    assert_eq!(ground.refused(odd.body("")).await, Code::MalformedRequest);
}
