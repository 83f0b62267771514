//! A hold's life after it was placed.

use stampede_contracts::inventory::{Attach, HoldOf, HoldState, OfOrder, ReleaseHold};
use stampede_contracts::{BlockId, HoldId, OrderId, SessionId, StepId};

use crate::world::{MINUTE, World, best, code, of_order, rows};

#[tokio::test]
async fn a_purchase_attaches_and_confirms_and_can_be_taken_back() {
    let (world, _replica) = World::with_replica().await;
    let (show, _) = world.open_section(rows(&[4])).await;
    let hold = world.hold(&best(&show, 2)).await.unwrap();

    let attach = world.attach_of(&hold);
    for _ in 0..2 {
        let attached = world.attach(&attach).await.unwrap();
        assert_eq!((attached.state, attached.order_id), (HoldState::Attached, Some(attach.order_id)));
        assert_eq!((&attached.seats, attached.total), (&hold.seats, hold.total));
    }
    assert_eq!(code(world.release(&hold).await), "hold_attached");
    let order = of_order(&attach);
    for _ in 0..2 {
        assert_eq!(world.confirm(&order).await.unwrap().state, HoldState::Sold);
    }
    assert_eq!(
        world.attach(&attach).await.unwrap().state,
        HoldState::Sold,
        "a late repetition is told the truth"
    );
    assert_eq!(code(world.release(&hold).await), "hold_attached");
    assert_eq!(code(world.detach(&order).await), "conflict");
    for _ in 0..2 {
        assert_eq!(world.free(&order).await.unwrap().state, HoldState::Freed);
    }
    assert_eq!(code(world.confirm(&order).await), "hold_gone");
    assert_eq!(world.get(&hold).await.unwrap().state, HoldState::Freed);
    let steps: Vec<(String, String, bool)> =
        sqlx::query_as("SELECT from_state, to_state, order_id IS NOT NULL FROM journal ORDER BY version")
            .fetch_all(world.pool())
            .await
            .unwrap();
    let expected = [
        ("free", "held", false),
        ("held", "attached", true),
        ("attached", "sold", true),
        ("sold", "free", true),
    ];
    assert_eq!(steps, expected.map(|(from, to, order)| (from.to_owned(), to.to_owned(), order)));
    assert_eq!(world.count("SELECT count(*) FROM journal WHERE step IS NOT NULL").await, 3);
    world.check().await;
}

#[tokio::test]
async fn a_held_hold_is_released_once() {
    let (world, _replica) = World::with_replica().await;
    let (show, _) = world.open_section(rows(&[4])).await;
    let hold = world.hold(&best(&show, 2)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(world.release(&hold).await.unwrap().state, HoldState::Freed);
    }
    assert_eq!(code(world.attach(&world.attach_of(&hold)).await), "hold_gone");
    assert_eq!(world.count("SELECT count(*) FROM journal").await, 2);
    world.check().await;
}

#[tokio::test]
async fn strangers_are_told_that_there_is_no_such_hold() {
    let (world, _replica) = World::with_replica().await;
    let (show, layout) = world.open_section(rows(&[4])).await;
    let hold = world.hold(&best(&show, 1)).await.unwrap();
    let block = layout.blocks[0].block_id;
    let elsewhere = HoldId::from_parts(BlockId::from_number(block.number() + 1), hold.hold_id.uuid());
    for (hold_id, session) in
        [(hold.hold_id, SessionId::new()), (HoldId::new(block), hold.session), (elsewhere, hold.session)]
    {
        let stranger = stampede_contracts::inventory::HoldView { hold_id, session, ..hold.clone() };
        assert_eq!(code(world.get(&stranger).await), "hold_not_found");
        let of = HoldOf { hold_id, session };
        assert_eq!(code(world.call::<ReleaseHold>(&world.gateway, &of).await), "hold_not_found");
        assert_eq!(code(world.attach(&world.attach_of(&stranger)).await), "hold_not_found");
    }
    let nothing = OfOrder { hold_id: HoldId::new(block), order_id: OrderId::new(), step: StepId::new() };
    assert_eq!(code(world.detach(&nothing).await), "hold_not_found");
    assert_eq!(code(world.confirm(&nothing).await), "hold_not_found");
    assert_eq!(code(world.free(&nothing).await), "hold_not_found");
    assert_eq!(world.get(&hold).await.unwrap(), hold);
}

#[tokio::test]
async fn another_order_does_nothing_to_a_hold() {
    let (world, _replica) = World::with_replica().await;
    let (show, _) = world.open_section(rows(&[4])).await;
    let hold = world.hold(&best(&show, 2)).await.unwrap();
    let attach = world.attach_of(&hold);
    world.attach(&attach).await.unwrap();
    let other = Attach { order_id: OrderId::new(), ..attach.clone() };
    for state in [HoldState::Attached, HoldState::Sold] {
        assert_eq!(code(world.attach(&other).await), "hold_gone");
        assert_eq!(code(world.confirm(&of_order(&other)).await), "hold_gone");
        assert_eq!(world.detach(&of_order(&other)).await.unwrap().state, state);
        assert_eq!(world.free(&of_order(&other)).await.unwrap().state, state);
        world.confirm(&of_order(&attach)).await.unwrap();
    }
    world.check().await;
}

#[tokio::test]
async fn a_declined_order_gives_the_hold_back_for_another_order() {
    let (world, _replica) = World::with_replica().await;
    let (show, _) = world.open_section(rows(&[4])).await;
    let hold = world.hold(&best(&show, 2)).await.unwrap();
    let first = world.attach_of(&hold);
    world.attach(&first).await.unwrap();
    for _ in 0..2 {
        assert_eq!(world.detach(&of_order(&first)).await.unwrap(), hold, "as before, until its old expiry");
    }
    assert_eq!(code(world.attach(&first).await), "hold_gone", "a message that was late");
    let second = world.attach_of(&hold);
    assert_eq!(world.attach(&second).await.unwrap().order_id, Some(second.order_id));
    assert_eq!(world.free(&of_order(&first)).await.unwrap().state, HoldState::Attached);

    world.advance(MINUTE * 6);
    assert_eq!(
        world.get(&hold).await.unwrap().state,
        HoldState::Attached,
        "it does not expire with its hold time"
    );
    assert_eq!(
        world.detach(&of_order(&second)).await.unwrap().state,
        HoldState::Freed,
        "its time has passed"
    );
    world.check().await;
}

#[tokio::test]
async fn an_order_that_gave_up_before_its_attach_arrived_gets_nothing() {
    let (world, _replica) = World::with_replica().await;
    let (show, _) = world.open_section(rows(&[4])).await;
    let hold = world.hold(&best(&show, 2)).await.unwrap();
    let attach = world.attach_of(&hold);
    assert_eq!(world.free(&of_order(&attach)).await.unwrap().state, HoldState::Held);
    assert_eq!(code(world.attach(&attach).await), "hold_gone");
    let past = Attach { decide_by: world.now(), ..world.attach_of(&hold) };
    assert_eq!(code(world.attach(&past).await), "hold_gone");
    assert!(world.attach(&world.attach_of(&hold)).await.is_ok());
    world.check().await;
}
