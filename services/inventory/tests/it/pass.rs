//! Shows that sell to holders of a lobby's pass only.

use stampede_contracts::event::{PassClosed, ShowPublished};
use stampede_contracts::inventory::{ClosePassOf, HoldState, PlaceHold};
use stampede_contracts::signed::{Pass, SigningKey};
use stampede_contracts::topology::EVT_FACTS;
use stampede_contracts::{PassId, SessionId, ShowId};
use stampede_testkit::eventually;

use crate::world::{MINUTE, PATIENCE, World, best, code, of_order, rows};

fn with(world: &World, show: &ShowPublished, pass: &Pass) -> PlaceHold {
    PlaceHold { session: pass.session, pass: Some(world.key.sign(pass)), ..best(show, 1) }
}

fn close(pass: &Pass) -> ClosePassOf {
    ClosePassOf { pass_id: pass.pass_id, session: pass.session, show: pass.show_id }
}

#[tokio::test]
async fn only_a_valid_pass_of_this_session_and_show_opens_the_door() {
    let (world, _replica) = World::with_replica().await;
    let show = world.show_with_lobby(&[rows(&[10])]);
    world.open(&show).await;
    let pass = world.pass(SessionId::new(), show.show_id);

    let without = PlaceHold { pass: None, ..with(&world, &show, &pass) };
    assert_eq!(code(world.hold(&without).await), "pass_required");
    let other_key = SigningKey::from_seed_hex(&"08".repeat(32)).unwrap();
    let forged = PlaceHold { pass: Some(other_key.sign(&pass)), ..with(&world, &show, &pass) };
    let nonsense = PlaceHold { pass: Some("pass".into()), ..with(&world, &show, &pass) };
    let strangers = PlaceHold { session: SessionId::new(), ..with(&world, &show, &pass) };
    let elsewhere = with(&world, &show, &Pass { show_id: ShowId::new(), ..pass.clone() });
    for request in [forged, nonsense, strangers, elsewhere] {
        assert_eq!(code(world.hold(&request).await), "pass_invalid");
    }
    assert!(world.hold(&with(&world, &show, &pass)).await.is_ok());

    world.advance(MINUTE);
    let expired = Pass { session: SessionId::new(), ..pass };
    assert_eq!(code(world.hold(&with(&world, &show, &expired)).await), "pass_closed");
    world.check().await;
}

#[tokio::test]
async fn passes_by_the_lobbys_old_key_and_by_its_new_one_open_the_door_while_it_is_replaced() {
    let mut world = World::new().await;
    let successor = SigningKey::from_seed_hex(&"09".repeat(32)).unwrap();
    let hex = |key: &SigningKey| key.verifying_key().to_hex();
    world.set("PASS_PUBLIC_KEY", &format!("{},{}", hex(&successor), hex(&world.key)));
    let _replica = world.replica().await;
    let show = world.show_with_lobby(&[rows(&[10])]);
    world.open(&show).await;
    let (old, new) = (world.pass(SessionId::new(), show.show_id), world.pass(SessionId::new(), show.show_id));
    assert!(world.hold(&with(&world, &show, &old)).await.is_ok());
    let new = PlaceHold { pass: Some(successor.sign(&new)), ..with(&world, &show, &new) };
    assert!(world.hold(&new).await.is_ok());
}

#[tokio::test]
async fn a_pass_serves_many_attempts_until_an_order_uses_it_up() {
    let (world, _replica) = World::with_replica().await;
    let show = world.show_with_lobby(&[rows(&[10])]);
    world.open(&show).await;
    let pass = world.pass(SessionId::new(), show.show_id);
    let request = with(&world, &show, &pass);
    let first = world.hold(&request).await.unwrap();
    world.release(&first).await.unwrap();
    let hold = world.hold(&with(&world, &show, &pass)).await.unwrap();

    let attach = world.attach_of(&hold);
    world.attach(&attach).await.unwrap();
    eventually(PATIENCE, async || passes_closed(&world, &show).await == [pass.pass_id]).await;
    world.detach(&of_order(&attach)).await.unwrap();

    let again = world.attach_of(&hold);
    assert!(world.attach(&again).await.is_ok(), "after 402 it is ordered again without a pass");
    world.free(&of_order(&again)).await.unwrap();
    assert_eq!(code(world.hold(&with(&world, &show, &pass)).await), "pass_closed");
    assert_eq!(world.hold(&request).await.unwrap(), first, "but the same key gets the same reply");
    eventually(PATIENCE, async || world.count("SELECT count(*) FROM outbox").await == 0).await;
    assert_eq!(passes_closed(&world, &show).await.len(), 1, "told once");
    world.check().await;
}

async fn passes_closed(world: &World, show: &ShowPublished) -> Vec<PassId> {
    let stream = world.operator.jetstream().get_stream(EVT_FACTS).await.unwrap();
    let last = stream.cached_info().state.last_sequence;
    let mut passes = Vec::new();
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let closed: PassClosed = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(closed.show_id, show.show_id);
        passes.push(closed.pass_id);
    }
    passes
}

#[tokio::test]
async fn who_leaves_the_lobby_gives_pass_and_hold_back() {
    let (world, _replica) = World::with_replica().await;
    let show = world.show_with_lobby(&[rows(&[10])]);
    world.open(&show).await;
    let pass = world.pass(SessionId::new(), show.show_id);
    let hold = world.hold(&with(&world, &show, &pass)).await.unwrap();

    let end = world.close_pass(&close(&pass)).await.unwrap();
    assert_eq!(end.released, Some(hold.hold_id));
    assert_eq!(world.close_pass(&close(&pass)).await.unwrap(), end, "asked again, answered alike");
    assert_eq!(world.get(&hold).await.unwrap().state, HoldState::Freed);
    assert_eq!(code(world.hold(&with(&world, &show, &pass)).await), "pass_closed");

    let unused = world.pass(SessionId::new(), show.show_id);
    assert_eq!(world.close_pass(&close(&unused)).await.unwrap().released, None);
    assert_eq!(
        code(world.hold(&with(&world, &show, &unused)).await),
        "pass_closed",
        "closed before it was used"
    );
    world.check().await;
}

#[tokio::test]
async fn closing_a_pass_leaves_an_ordered_hold_alone() {
    let (world, _replica) = World::with_replica().await;
    let show = world.show_with_lobby(&[rows(&[10])]);
    world.open(&show).await;
    let pass = world.pass(SessionId::new(), show.show_id);
    let hold = world.hold(&with(&world, &show, &pass)).await.unwrap();
    let attach = world.attach_of(&hold);
    world.attach(&attach).await.unwrap();
    assert_eq!(world.close_pass(&close(&pass)).await.unwrap().released, None);
    assert_eq!(world.confirm(&of_order(&attach)).await.unwrap().state, HoldState::Sold);
    world.check().await;
}

#[tokio::test]
async fn a_hold_and_the_closing_of_its_pass_at_once_leave_no_hold_behind() {
    let (world, _replica) = World::with_replica().await;
    let show = world.show_with_lobby(&[rows(&[50])]);
    world.open(&show).await;
    for _ in 0..20 {
        let pass = world.pass(SessionId::new(), show.show_id);
        let (request, closing) = (with(&world, &show, &pass), close(&pass));
        let (held, end) = tokio::join!(world.hold(&request), world.close_pass(&closing));
        let end = end.unwrap();
        match held {
            Ok(hold) => assert_eq!(end.released, Some(hold.hold_id)),
            Err(problem) => assert_eq!((problem.code.as_str(), end.released), ("pass_closed", None)),
        }
    }
    assert_eq!(world.count("SELECT count(*) FROM hold WHERE state <> 'freed'").await, 0);
    world.check().await;
}
