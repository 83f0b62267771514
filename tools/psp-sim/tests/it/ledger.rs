//! What the provider promises: one outcome a key, one end an authorisation.

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use stampede_psp_sim::card::Card;

use crate::support::{API_KEY, client, sim};

#[tokio::test]
async fn a_purchase_and_its_refund_are_in_the_ledger() {
    let sim = sim().await;
    let authorisation = sim.authorised("k1", Card::Works).await;
    let capture = sim.capture("k2", &authorisation).await.unwrap();
    assert_eq!((capture.status, capture.text("status")), (StatusCode::CREATED, "captured"));
    let refund = sim.refund("k3", capture.text("id"), 4_500).await.unwrap();
    assert_eq!((refund.status, refund.text("status")), (StatusCode::CREATED, "refunded"));
    assert!(authorisation.starts_with("auth_") && capture.text("id").starts_with("cap_"));
    assert_eq!(refund.body["amount"], 4_500);
    assert_eq!(refund.text("reference"), "ord_1", "the merchant's name goes through all of it");

    assert_eq!(sim.ledger().await, ["authorise authorised", "capture captured", "refund refunded"]);
}

#[tokio::test]
async fn the_same_key_gets_the_same_reply_and_is_done_once() {
    let sim = sim().await;
    let token = Card::Works.token();
    let replies = join_all((0..20).map(|_| sim.authorise("k1", &token))).await;
    let replies: Vec<_> = replies.into_iter().map(Result::unwrap).collect();
    assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
    assert_eq!(replies[0].status, StatusCode::CREATED);
    assert_eq!(sim.look_up("k1").await.body, replies[0].body);
    assert_eq!(sim.ledger().await, ["authorise authorised"]);

    let other = sim.authorise("k1", &Card::Works.token()).await.unwrap();
    assert_eq!((other.status, other.text("code")), (StatusCode::UNPROCESSABLE_ENTITY, "key_reused"));
}

#[tokio::test]
async fn a_declined_card_is_declined_for_good_under_its_key() {
    let sim = sim().await;
    for (key, token, reason) in [
        ("k1", Card::Declined.token(), "card_declined"),
        ("k2", Card::NoFunds.token(), "insufficient_funds"),
        ("k3", "tok_made_up".to_owned(), "invalid_card_token"),
    ] {
        for _ in 0..2 {
            let answer = sim.authorise(key, &token).await.unwrap();
            assert_eq!(answer.status, StatusCode::PAYMENT_REQUIRED);
            assert_eq!((answer.text("status"), answer.text("reason")), ("declined", reason));
        }
    }
    assert_eq!(sim.ledger().await, ["authorise declined"; 3]);
}

#[tokio::test]
async fn of_many_who_end_an_authorisation_one_succeeds() {
    let sim = sim().await;
    let authorisation = sim.authorised("k", Card::Works).await;
    let captures = (0..8).map(async |n| sim.capture(&format!("c{n}"), &authorisation).await.unwrap());
    let voids = (0..8).map(async |n| sim.void(&format!("v{n}"), &authorisation).await.unwrap());
    let (captures, voids) = tokio::join!(join_all(captures), join_all(voids));
    let statuses: Vec<_> = captures.iter().chain(&voids).map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::CREATED).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::CONFLICT).count(), 15, "{statuses:?}");
}

#[tokio::test]
async fn many_refunds_give_back_no_more_than_was_taken() {
    let sim = sim().await;
    let authorisation = sim.authorised("k", Card::Works).await;
    let capture = sim.capture("c", &authorisation).await.unwrap();
    let refunds =
        (0..6).map(async |n| sim.refund(&format!("r{n}"), capture.text("id"), 1_500).await.unwrap());
    let given = join_all(refunds).await.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    assert_eq!(given, 3);
}

#[tokio::test]
async fn what_is_not_there_is_refused() {
    let sim = sim().await;
    let capture = sim.capture("k1", "auth_unknown").await.unwrap();
    assert_eq!((capture.status, capture.text("reason")), (StatusCode::CONFLICT, "unknown_authorisation"));
    let refund = sim.refund("k2", "cap_unknown", 1).await.unwrap();
    assert_eq!((refund.status, refund.text("reason")), (StatusCode::CONFLICT, "unknown_capture"));
    assert_eq!(sim.look_up("k3").await.body, json!({ "status": "unknown" }));
}

#[tokio::test]
async fn a_cancelled_key_is_refused_from_then_on() {
    let sim = sim().await;
    assert_eq!(sim.cancel("k1").await.text("status"), "cancelled");
    assert_eq!(sim.cancel("k1").await.text("status"), "cancelled");
    let late = sim.authorise("k1", &Card::Works.token()).await.unwrap();
    assert_eq!((late.status, late.text("reason")), (StatusCode::CONFLICT, "key_cancelled"));
    assert_eq!(sim.look_up("k1").await.text("status"), "cancelled");
}

#[tokio::test]
async fn cancelling_a_key_that_was_processed_says_what_became_of_it() {
    let sim = sim().await;
    let authorisation = sim.authorised("k1", Card::Works).await;
    let outcome = sim.cancel("k1").await;
    assert_eq!((outcome.status, outcome.text("status")), (StatusCode::OK, "authorised"));
    assert_eq!(outcome.text("id"), authorisation);
    assert_eq!(sim.void("k2", &authorisation).await.unwrap().text("status"), "voided");
}

#[tokio::test]
async fn cancel_and_authorise_at_once_agree() {
    let sim = sim().await;
    for n in 0..20 {
        let (key, token) = (format!("k{n}"), Card::Works.token());
        let (authorised, cancelled) = tokio::join!(sim.authorise(&key, &token), sim.cancel(&key));
        let is_done = authorised.unwrap().status == StatusCode::CREATED;
        assert_eq!(cancelled.text("status"), if is_done { "authorised" } else { "cancelled" });
    }
}

#[tokio::test]
async fn without_its_database_the_provider_is_unavailable_for_a_moment() {
    let sim = sim().await;
    sim.database.shut().await;
    let body = json!({ "card_token": Card::Works.token(), "amount": 1, "currency": "EUR", "reference": "r" });
    for call in [
        "authorisations",
        "authorisations/auth_1/capture",
        "authorisations/auth_1/void",
        "captures/cap_1/refund",
        "operations/k1/cancel",
    ] {
        let request = client().post(format!("{}/v1/{call}", sim.url)).bearer_auth(API_KEY);
        let answer = request.header("idempotency-key", call).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{call}");
        assert_eq!(answer.headers()["retry-after"], "1", "{call}");
    }
    sim.database.open().await;
    sim.authorised("k1", Card::Works).await;
}
