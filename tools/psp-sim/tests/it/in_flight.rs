//! Requests that are under way: unknown, and perhaps not for long.

use std::time::Duration;

use reqwest::StatusCode;
use stampede_psp_sim::card::Card;
use stampede_psp_sim::knobs::Knobs;
use stampede_testkit::eventually;
use tokio::time::Instant;

use crate::support::{Answer, PATIENCE, Sim, sim, sim_with};

const SECOND: Duration = Duration::from_secs(1);
/// A time in flight that is longer than any test.
const LONG: Duration = Duration::from_secs(600);

/// Requests an authorisation that cannot be answered, and hangs up when it is in flight.
async fn hang_up_in_flight(sim: &Sim, token: &str) {
    let request = async {
        loop {
            sim.authorise("k1", token).await.unwrap_err();
        }
    };
    tokio::select! {
        () = request => {}
        () = eventually(PATIENCE, async || sim.provider.is_in_flight("k1")) => {}
    }
}

/// Requests an authorisation until there is an answer.
async fn answer(sim: &Sim, token: &str) -> Answer {
    loop {
        if let Ok(answer) = sim.authorise("k1", token).await {
            return answer;
        }
    }
}

#[tokio::test]
async fn a_charge_lands_after_a_look_up_found_nothing() {
    let sim = sim_with(LONG, None).await;
    let token = Card::Late.token();
    hang_up_in_flight(&sim, &token).await;
    assert_eq!(sim.look_up("k1").await.status, StatusCode::NOT_FOUND);

    eventually(PATIENCE, async || sim.look_up("k1").await.status == StatusCode::OK).await;
    assert_eq!(answer(&sim, &token).await.text("status"), "authorised");
    assert_eq!(sim.ledger().await, ["authorise authorised"], "in spite of two requests");
}

#[tokio::test]
async fn a_late_charge_lands_also_when_nobody_looks() {
    let sim = sim().await;
    let token = Card::Late.token();
    sim.authorise("k1", &token).await.unwrap_err();
    // One that had too little time to land is lost; only one that landed is answered.
    assert_eq!(answer(&sim, &token).await.text("status"), "authorised");
    assert_eq!(sim.ledger().await, ["authorise authorised"]);
}

#[tokio::test]
async fn cancelling_a_key_in_flight_keeps_it_from_landing() {
    let sim = sim_with(10 * SECOND, None).await;
    let token = Card::Late.token();
    let (lost, cancelled) = tokio::join!(sim.authorise("k1", &token), async {
        eventually(PATIENCE, async || sim.provider.is_in_flight("k1")).await;
        sim.cancel("k1").await
    });
    assert_eq!(cancelled.text("status"), "cancelled");
    assert!(lost.is_err(), "its caller heard nothing");
    let again = answer(&sim, &token).await;
    assert_eq!((again.status, again.text("reason")), (StatusCode::CONFLICT, "key_cancelled"));
    assert_eq!(sim.ledger().await, ["cancel cancelled"]);
}

#[tokio::test]
async fn a_slow_card_is_unknown_until_it_is_done_and_a_repeat_joins() {
    let sim = sim_with(LONG, None).await;
    let token = Card::Slow.token();
    let held = sim.hold_ledger().await;
    let started = Instant::now();
    let (first, repeat) = tokio::join!(answer(&sim, &token), async {
        eventually(PATIENCE, async || sim.provider.is_in_flight("k1")).await;
        assert_eq!(sim.look_up("k1").await.status, StatusCode::NOT_FOUND);
        drop(held);
        answer(&sim, &token).await
    });
    assert_eq!((first.status, &first), (StatusCode::CREATED, &repeat));
    assert!(started.elapsed() >= 5 * SECOND, "slow");
    assert_eq!(sim.ledger().await, ["authorise authorised"]);
}

#[tokio::test]
async fn nothing_lands_after_the_time_in_flight() {
    let sim = sim_with(SECOND / 2, None).await;
    sim.set(Knobs { latency_ms: 600, ..Knobs::default() });
    let lost = sim.authorise("k1", &Card::Works.token()).await.unwrap();
    assert_eq!(lost.status, StatusCode::INTERNAL_SERVER_ERROR);
    sim.set(Knobs::default());
    assert_eq!(sim.look_up("k1").await.status, StatusCode::NOT_FOUND, "and this is final");
    assert_eq!(sim.get("/v1/info").await.unwrap().body["max_in_flight_ms"], 500);
}

#[tokio::test]
async fn who_hangs_up_does_not_stop_what_was_asked() {
    let sim = sim_with(LONG, None).await;
    let held = sim.hold_ledger().await;
    hang_up_in_flight(&sim, &Card::Works.token()).await;
    drop(held);
    eventually(PATIENCE, async || sim.look_up("k1").await.text("status") == "authorised").await;
}
