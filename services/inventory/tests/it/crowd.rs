//! Many buyers at once.

use std::collections::HashMap;

use futures::future::join_all;
use stampede_contracts::event::Seating;
use stampede_contracts::inventory::{HoldState, HoldView, PlaceHold};
use stampede_contracts::{HoldId, Problem, SessionId};
use stampede_testkit::eventually;

use crate::world::{PATIENCE, World, best, code, of_order, rows};

/// Clients of a crowd may have to retry; with the same key that is harmless.
async fn insist(world: &World, request: &PlaceHold) -> Result<HoldView, Problem> {
    loop {
        match world.hold(request).await {
            Err(problem) if problem.status >= 500 => {}
            answer => return answer,
        }
    }
}

/// What came of a crowd of requests, counted by outcome.
async fn rush(world: &World, requests: Vec<PlaceHold>) -> HashMap<&'static str, usize> {
    let mut outcomes = HashMap::new();
    let answers = join_all(requests.iter().map(|request| insist(world, request)));
    for answer in answers.await {
        *outcomes.entry(answer.map_or_else(|problem| problem.code.as_str(), |_| "held")).or_default() += 1;
    }
    outcomes
}

#[tokio::test]
async fn exactly_as_many_seats_are_held_as_there_are() {
    let (world, _first) = World::with_replica().await;
    let _second = world.replica().await;
    let (show, _) = world.open_section(rows(&[30, 30])).await;
    let outcomes = rush(&world, (0..100).map(|_| best(&show, 1)).collect()).await;
    assert_eq!(outcomes, HashMap::from([("held", 60), ("seats_taken", 40)]));
    assert_eq!(world.count("SELECT sum(held) FROM block").await, 60);
    world.check().await;
}

#[tokio::test]
async fn general_admission_never_goes_beyond_its_capacity() {
    let (world, _first) = World::with_replica().await;
    let _second = world.replica().await;
    let (show, layout) = world.open_section(Seating::GeneralAdmission(1_100)).await;
    assert_eq!(layout.blocks.len(), 2);
    sqlx::query("UPDATE block SET free = 31, blocked = capacity - 31").execute(world.pool()).await.unwrap();
    let outcomes = rush(&world, (0..40).map(|_| best(&show, 3)).collect()).await;
    assert_eq!(
        outcomes,
        HashMap::from([("held", 20), ("seats_taken", 20)]),
        "one place is left in each block"
    );
    world.check().await;
}

#[tokio::test]
async fn one_session_in_a_hurry_gets_one_hold() {
    let (world, _first) = World::with_replica().await;
    let _second = world.replica().await;
    let (show, _) = world.open_section(rows(&[500, 500, 500])).await;
    for _ in 0..5 {
        let session = SessionId::new();
        let requests = (0..8).map(|_| PlaceHold { session, ..best(&show, 1) }).collect();
        assert_eq!(rush(&world, requests).await, HashMap::from([("held", 1), ("hold_exists", 7)]));
    }
    world.check().await;
}

#[tokio::test]
async fn one_key_in_a_hurry_gets_one_reply() {
    let (world, _first) = World::with_replica().await;
    let _second = world.replica().await;
    let (show, _) = world.open_section(rows(&[500, 500, 500])).await;
    for _ in 0..5 {
        let request = best(&show, 2);
        let answers = join_all((0..8).map(|_| insist(&world, &request))).await;
        let holds: Vec<HoldId> = answers.into_iter().map(|answer| answer.unwrap().hold_id).collect();
        assert!(holds.windows(2).all(|pair| pair[0] == pair[1]), "{holds:?}");
    }
    assert_eq!(world.count("SELECT count(*) FROM hold").await, 5);
    world.check().await;
}

#[tokio::test]
async fn of_several_who_want_the_same_seats_one_gets_them() {
    let (world, _first) = World::with_replica().await;
    let _second = world.replica().await;
    let (show, layout) = world.open_section(rows(&[10])).await;
    let block = layout.blocks[0].block_id;
    let requests = (0..10)
        .map(|nth| crate::world::seats(&show, &[(block, 4), (block, if nth % 2 == 0 { 3 } else { 5 })]));
    let outcomes = rush(&world, requests.collect()).await;
    assert_eq!(outcomes, HashMap::from([("held", 1), ("seats_taken", 9)]));
    world.check().await;
}

#[tokio::test]
async fn release_and_order_at_once_have_one_winner() {
    let (world, _first) = World::with_replica().await;
    let _second = world.replica().await;
    let (show, _) = world.open_section(rows(&[100])).await;
    for _ in 0..20 {
        let hold = world.hold(&best(&show, 1)).await.unwrap();
        let (attach, rival) = (world.attach_of(&hold), world.attach_of(&hold));
        let (one, two, released) =
            tokio::join!(world.attach(&attach), world.attach(&rival), world.release(&hold));
        let attached: Vec<_> =
            [&one, &two].into_iter().filter_map(|attached| attached.as_ref().ok()).collect();
        match released {
            Ok(freed) => assert_eq!((freed.state, attached.len()), (HoldState::Freed, 0)),
            Err(problem) => assert_eq!((problem.code.as_str(), attached.len()), ("hold_attached", 1)),
        }
        for refused in [one, two].into_iter().filter(Result::is_err) {
            assert_eq!(code(refused), "hold_gone");
        }
    }
    world.check().await;
}

#[tokio::test]
async fn purchases_go_on_while_a_replica_leaves() {
    let (world, leaving) = World::with_replica().await;
    let _staying = world.replica().await;
    let (show, _) = world.open_section(Seating::GeneralAdmission(200)).await;
    let purchase = async |_| {
        let request = best(&show, 1);
        eventually(PATIENCE, async || world.hold(&request).await.is_ok()).await;
        let hold = world.hold(&request).await.unwrap();
        let attach = world.attach_of(&hold);
        eventually(PATIENCE, async || world.attach(&attach).await.is_ok()).await;
        let order = of_order(&attach);
        eventually(PATIENCE, async || world.confirm(&order).await.is_ok()).await;
    };
    let purchases = join_all((0..60).map(purchase));
    tokio::join!(purchases, leaving.end());
    assert_eq!(world.count("SELECT sum(sold) FROM block").await, 60);
    world.check().await;
}
