//! The three doors, and who may come in.

use reqwest::StatusCode;
use serde_json::{Value, json};
use stampede_contracts::api::{TEST_CARDS, TestCards};
use stampede_psp_sim::app;
use stampede_psp_sim::card::Card;

use crate::support::{API_KEY, NEXT_API_KEY, client, serve, sim};

#[tokio::test]
async fn without_the_api_key_nothing_is_told() {
    let sim = sim().await;
    for key in [None, Some("wrong"), Some("sk_test2"), Some("")] {
        let mut request = client().get(format!("{}/v1/ledger", sim.url));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        assert_eq!(request.send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "{key:?}");
    }
}

#[tokio::test]
async fn both_keys_are_taken_while_one_replaces_the_other() {
    let sim = sim().await;
    for key in [API_KEY, NEXT_API_KEY] {
        let answer = client().get(format!("{}/v1/ledger", sim.url)).bearer_auth(key).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{key}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_a_problem() {
    let sim = sim().await;
    let body = |amount: i64, currency: &str, token: &str| json!({ "card_token": token, "amount": amount, "currency": currency, "reference": "ord_1" });
    for (key, body, code) in [
        ("k", body(-1, "EUR", "tok_x"), "validation_failed"),
        ("k", body(1, "euro", "tok_x"), "malformed_request"),
        ("k", body(1, "EUR", ""), "validation_failed"),
        ("k", body(1, "EUR", &"x".repeat(201)), "validation_failed"),
        ("k", json!({ "amount": 1 }), "malformed_request"),
        ("", body(1, "EUR", "tok_x"), "key_malformed"),
        ("a key", body(1, "EUR", "tok_x"), "key_malformed"),
    ] {
        let answer = sim.post(key, "/v1/authorisations", body).await.unwrap();
        assert_eq!(answer.text("code"), code, "{answer:?}");
    }
    assert_eq!(sim.refund("k", "cap_1", -1).await.unwrap().text("code"), "validation_failed");
    assert!(sim.ledger().await.is_empty());
}

#[tokio::test]
async fn a_key_is_the_same_with_and_without_quotes() {
    let sim = sim().await;
    let token = Card::Works.token();
    let quoted = sim.authorise("\"k1\"", &token).await.unwrap();
    assert_eq!(quoted, sim.authorise("k1", &token).await.unwrap());
}

#[tokio::test]
async fn a_browser_of_any_origin_gets_a_token_for_a_test_card() {
    let (url, _server) = serve(app::tokens("https://pay.example/tokens".to_owned()).unwrap()).await;
    let preflight = client()
        .request(http::Method::OPTIONS, format!("{url}/tokens"))
        .header("origin", "https://shop.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type")
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.status(), StatusCode::OK);
    assert_eq!(preflight.headers()["access-control-allow-origin"], "*");
    assert_eq!(preflight.headers()["access-control-allow-headers"], "content-type");

    for (number, behaviour) in TEST_CARDS {
        let request = client().post(format!("{url}/tokens")).header("origin", "https://shop.example");
        let answer = request.json(&json!({ "card_number": number })).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED, "{behaviour}");
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
        let token: Value = answer.json().await.unwrap();
        assert_eq!(Card::of_token(token["card_token"].as_str().unwrap()), Card::with_number(number));
    }
    let listed: TestCards =
        client().get(format!("{url}/test-cards")).send().await.unwrap().json().await.unwrap();
    assert_eq!(listed.cards.len(), TEST_CARDS.len());
    assert_eq!(listed.tokens_url, "https://pay.example/tokens");
}

#[tokio::test]
async fn no_other_card_gets_a_token() {
    let (url, _server) = serve(app::tokens("unused".to_owned()).unwrap()).await;
    for (body, code) in [
        (json!({ "card_number": "4111111111111111" }), "validation_failed"),
        (json!({ "card_number": "42" }), "validation_failed"),
        (json!({ "card_number": "4242x242424242424" }), "validation_failed"),
        (json!({ "card_number": 4_242_424_242_424_242_i64 }), "malformed_request"),
        (json!({ "card_number": "4242424242424242", "cvc": "123" }), "malformed_request"),
        (json!({}), "malformed_request"),
    ] {
        let answer = client().post(format!("{url}/tokens")).json(&body).send().await.unwrap();
        assert!(answer.status().is_client_error());
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], code, "{body}");
    }
    let spaced = json!({ "card_number": "4242 4242 4242 4242" });
    let answer = client().post(format!("{url}/tokens")).json(&spaced).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED, "as it is printed on a card");
}

#[tokio::test]
async fn knobs_are_read_and_turned() {
    let sim = sim().await;
    let url = format!("{}/knobs", sim.url);
    let turned: Value =
        client().put(&url).json(&json!({ "latency_ms": 5 })).send().await.unwrap().json().await.unwrap();
    assert_eq!(turned["latency_ms"], 5);
    assert_eq!(sim.provider.panel().read().latency_ms, 5);
    let wrong = client().put(&url).json(&json!({ "error_rate": 2 })).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let read: Value = client().get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(read, turned);
}
