//! The verifier finds a planted violation of each rule, and nothing in a world where everything holds.

mod data;
mod privacy;
mod told;
mod world;

use std::time::Duration;

use stampede::verify::{Options, Rule, verify};

use world::World;

#[tokio::test]
async fn in_a_clean_world_everything_holds_and_every_database_is_looked_at() {
    let world = World::new().await;
    let report = world.verify().await;
    assert!(report.holds() && report.restless.is_empty(), "{report}");
    let nothing: Vec<Rule> = Rule::ALL
        .into_iter()
        .filter(|rule| report.of(*rule).unwrap().checked.iter().all(|(number, _)| *number == 0))
        .collect();
    // Nobody wrote down what buyers were told.
    assert_eq!(nothing, [Rule::SameReply], "{report}");
    assert!(report.to_string().contains("  nothing\n"), "{report}");
}

const PENDING: &str = "
    INSERT INTO orders (order_id, session_id, fingerprint, state, hold_block, hold_id, buyer_name, buyer_email,
        order_secret, decide_by, running_until, created_at)
    VALUES (id('order', 9), id('session', 9), '', 'pending', 1, id('hold', 9), 'x', 'x', 'x', now(), now(), now())";

#[tokio::test]
async fn what_is_young_is_left_out() {
    let mut world = World::new().await;
    world.spoil("orders", PENDING).await;
    world.breaks(Rule::Ends, "is pending since").await;
    world.options.younger_than = Duration::from_secs(60);
    let report = world.verify().await;
    assert!(report.holds() && report.restless.is_empty(), "{report}");
}

#[tokio::test]
async fn what_comes_to_rest_in_time_is_waited_for() {
    let world = World::new().await;
    world.spoil("orders", PENDING).await;
    let (tell, mut told) = tokio::sync::mpsc::channel(8);
    let options = Options { settle_within: Duration::from_secs(60), ..world.options };
    let verified = verify(&world.sources, &options, |restless| {
        tell.try_send(restless.clone()).unwrap();
    });
    let settle = async {
        let restless = told.recv().await.unwrap();
        assert_eq!(restless, [(1, "orders to settle")]);
        world
            .spoil("orders", "UPDATE orders SET state = 'failed', settled_at = now() WHERE state = 'pending'")
            .await;
    };
    let (report, ()) = tokio::join!(verified, settle);
    let report = report.unwrap();
    assert!(report.holds() && report.restless.is_empty(), "{report}");
    assert!(told.recv().await.unwrap().is_empty());
}

/// Half of it is gone already, the beginning first.
const FORGET_SEATS: &str = "
    WITH gone AS (DELETE FROM journal WHERE (block = 1 AND version < 8) OR block = 2 RETURNING hold)
    DELETE FROM hold WHERE id IN (SELECT hold FROM gone)";
const FORGET_LINE: &str = "DELETE FROM place WHERE number <= 3";

#[tokio::test]
async fn what_is_forgotten_of_a_show_that_is_over_is_not_missed() {
    let world = World::new().await;
    world.spoil("inventory", FORGET_SEATS).await;
    let broken = world.verify().await.broken();
    assert!(broken.contains(&Rule::Capacity) && broken.contains(&Rule::Attached), "{broken:?}");
    world.spoil("inventory", "UPDATE show SET history = 'going'").await;
    let report = world.verify().await;
    assert!(report.holds(), "{report}");

    world.spoil("lobby", FORGET_LINE).await;
    let broken = world.verify().await.broken();
    assert!(broken.contains(&Rule::Lobby), "{broken:?}");
    world.spoil("lobby", "UPDATE show SET history = 'going'").await;
    let report = world.verify().await;
    assert!(report.holds(), "{report}");
}

#[tokio::test]
async fn a_thousand_broken_cases_are_counted_and_a_few_listed() {
    let world = World::new().await;
    world
        .spoil(
            "inventory",
            "INSERT INTO journal (block, version, hold, from_state, to_state, at)
             SELECT 3, version, gen_random_uuid(), 'free', 'held', now() FROM generate_series(2, 1001) AS version",
        )
        .await;
    let report = world.verify().await;
    let found = report.of(Rule::Attached).unwrap();
    assert_eq!((found.broken, found.listed.len()), (1_000, 20), "{report}");
    assert!(report.to_string().contains("and 980 more"), "{report}");
}
