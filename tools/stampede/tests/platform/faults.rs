//! Parts are taken away under load: what was acknowledged stays, everybody gets an answer, and everything comes to rest.

use std::process::Command;

use stampede::load::{Habits, Outcome, Summary};

use crate::stage::Stage;

const DOOR_RESTARTS_MAX: usize = 30;

/// Whatever was taken away, every buyer got an answer in the end, and no wrong one.
fn everybody_got_an_answer(summary: &Summary) {
    for missing in [Outcome::Silence, Outcome::Wrong, Outcome::Unsettled] {
        assert_eq!(summary.count(missing), 0, "{summary}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_is_restarted_in_turn_under_load() {
    let stage = Stage::start(&[]).await;
    let summary = stage
        .under_watched_load(stage.plan(&[], 600, 20.0, Habits::default()), async |sent_again| {
            for service in ["orders", "inventory", "payments", "notify", "catalog", "lobby"] {
                stage.platform.restart(service).await.unwrap();
            }
            // It is shut for a moment only, so until a buyer has stood before it.
            for _ in 0..DOOR_RESTARTS_MAX {
                stage.platform.restart("gateway").await.unwrap();
                if *sent_again.borrow() > 0 {
                    break;
                }
            }
        })
        .await;
    everybody_got_an_answer(&summary);
    assert!(summary.repeated > 0, "nobody noticed that the door was shut: {summary}");
    assert!(summary.confirmed > 200, "{summary}");
    stage.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_jetstream_is_deleted_under_load_and_nothing_acknowledged_is_lost() {
    let stage = Stage::start(&[]).await;
    let summary = stage
        .under_load(stage.plan(&[], 400, 20.0, Habits::default()), async {
            stage.platform.lose_jetstream().await.unwrap();
        })
        .await;
    everybody_got_an_answer(&summary);
    assert!(summary.confirmed > 100, "{summary}");
    stage.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_killed_and_frozen_at_random_under_load_and_no_rule_is_broken() {
    let stage = Stage::start(&[]).await;
    let output = Command::new(env!("CARGO_BIN_EXE_stampede"))
        .args(["chaos", "--seed", "1", "--minutes", "0.35", "--rate", "15", "--state"])
        .arg(stage.platform.state.root())
        .output()
        .unwrap();
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{said}");
    for fault in [" s  kill ", " s  freeze ", " s  resume "] {
        assert!(said.contains(fault), "{fault}: {said}");
    }
}
