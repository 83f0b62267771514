//! Parts are taken away under load: what was acknowledged stays, and everything comes to rest.

use std::time::Duration;

use stampede::load::{self, Habits, Outcome, Plan};

use crate::stage::Stage;

fn plan(stage: &Stage, buyers: u64, rate: f64) -> Plan {
    Plan {
        url: stage.platform.gateway_url.clone(),
        buyers,
        rate,
        shows: vec![],
        duration: None,
        in_flight_max: 5_000,
        habits: Habits::default(),
        seed: 11,
        operator_token: Some(stage.platform.secrets().unwrap().operator_token().unwrap()),
        history: stage.platform.state.root().join("history.jsonl"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_is_restarted_in_turn_under_load() {
    let stage = Stage::start(&[]).await;
    let load = tokio::spawn(load::run(plan(&stage, 600, 20.0), |_, _| {}));
    for service in ["orders", "inventory", "payments", "notify", "catalog", "lobby"] {
        stage.platform.restart(service).await.unwrap();
    }
    let summary = tokio::time::timeout(Duration::from_secs(180), load).await.unwrap().unwrap().unwrap();
    assert_eq!(summary.count(Outcome::Unsettled), 0, "{summary}");
    assert!(summary.confirmed > 200, "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_jetstream_is_deleted_under_load_and_nothing_acknowledged_is_lost() {
    let stage = Stage::start(&[]).await;
    let load = tokio::spawn(load::run(plan(&stage, 400, 20.0), |_, _| {}));
    stage.platform.lose_jetstream().await.unwrap();
    let summary = tokio::time::timeout(Duration::from_secs(180), load).await.unwrap().unwrap().unwrap();
    assert_eq!(summary.count(Outcome::Unsettled), 0, "{summary}");
    assert!(summary.confirmed > 100, "{summary}");
}
