//! Cards and knobs that make trouble.

use reqwest::StatusCode;
use stampede_psp_sim::card::Card;
use stampede_psp_sim::knobs::Knobs;

use crate::support::sim;

#[tokio::test]
async fn the_first_reply_of_the_lost_reply_card_is_lost() {
    let sim = sim().await;
    let token = Card::LostReply.token();
    let lost = sim.authorise("k1", &token).await.unwrap_err();
    assert!(!lost.is_timeout(), "the connection broke: {lost}");
    assert_eq!(sim.look_up("k1").await.text("status"), "authorised");
    assert_eq!(sim.authorise("k1", &token).await.unwrap().status, StatusCode::CREATED);
    assert_eq!(sim.ledger().await, ["authorise authorised"]);
}

#[tokio::test]
async fn a_card_without_capture_can_be_voided() {
    let sim = sim().await;
    let authorisation = sim.authorised("k1", Card::NoCapture).await;
    for key in ["k2", "k3"] {
        let refused = sim.capture(key, &authorisation).await.unwrap();
        assert_eq!((refused.status, refused.text("reason")), (StatusCode::CONFLICT, "capture_not_allowed"));
    }
    assert_eq!(sim.void("k4", &authorisation).await.unwrap().text("status"), "voided");
    let late = sim.capture("k5", &authorisation).await.unwrap();
    assert_eq!(late.text("reason"), "already_voided");
}

#[tokio::test]
async fn while_it_is_down_nothing_is_answered_and_nothing_done() {
    let sim = sim().await;
    sim.set(Knobs { down: true, ..Knobs::default() });
    let token = Card::Works.token();
    sim.authorise("k1", &token).await.unwrap_err();
    sim.get("/v1/operations/k1").await.unwrap_err();
    sim.get("/v1/ledger").await.unwrap_err();
    sim.set(Knobs::default());
    assert!(sim.ledger().await.is_empty());
    assert_eq!(sim.authorise("k1", &token).await.unwrap().status, StatusCode::CREATED);
}

#[tokio::test]
async fn repeating_through_errors_and_lost_replies_does_everything_once() {
    let sim = sim().await;
    sim.set(Knobs { error_rate: 0.5, lost_reply_rate: 0.2, ..Knobs::default() });
    for n in 0..6 {
        let (key, token) = (format!("k{n}"), Card::Works.token());
        let mut attempts = 0;
        loop {
            attempts += 1;
            assert!(attempts < 100, "{key}");
            match sim.authorise(&key, &token).await {
                Ok(answer) if answer.status == StatusCode::CREATED => break,
                Ok(answer) => assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR),
                Err(_lost) => {}
            }
        }
    }
    sim.set(Knobs::default());
    assert_eq!(sim.ledger().await, ["authorise authorised"; 6]);
}
