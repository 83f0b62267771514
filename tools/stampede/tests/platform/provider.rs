//! The payment provider misbehaves: nothing is charged twice, nothing is lost.

use std::process::Command;

use stampede_contracts::api::{self, OrderState};

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_and_a_charge_that_lands_late_end_in_tickets() {
    let stage = Stage::start(&["psp-sim.MAX_IN_FLIGHT_MS=3000"]).await;
    let show = stage.show("club").await;
    // One loses its first answer, the other lands after the provider said that it knows nothing of it.
    for card in ["4000000000000101", "4000000000000127"] {
        let token = stage.token().await;
        let reply = stage.order(&show, &token, card).await;
        assert!(matches!(reply.status.as_u16(), 201 | 202), "{card}: {} {:?}", reply.status, reply.problem());
        let order: api::Order = reply.json().unwrap();
        stage.becomes(order.order_id, &token, OrderState::Confirmed).await;
    }
    // Two authorisations and two captures, and both ledgers say so.
    let reconcile = Command::new(env!("CARGO_BIN_EXE_stampede"))
        .args(["reconcile", "--state"])
        .arg(stage.platform.state.root())
        .env("RECONCILE_MIN_AGE_MS", "0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&reconcile.stdout);
    assert!(reconcile.status.success(), "{said}{}", String::from_utf8_lossy(&reconcile.stderr));
    assert!(said.contains("4 operations"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_is_refused_for_good_gives_everything_back() {
    let stage = Stage::start(&[]).await;
    let (token, show) = (stage.token().await, stage.show("club").await);
    let before = crate::stage::free_seats(&show);
    let reply = stage.order(&show, &token, "4000000000000135").await;
    assert_eq!(reply.status.as_u16(), 409, "{:?}", reply.problem());
    stage.free_seats_become("club", before).await;
}
