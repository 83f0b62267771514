//! Placing a hold: what it says, which seats it has, and every way in which it is refused.

use stampede_contracts::event::Seating;
use stampede_contracts::inventory::{HoldState, PlaceHold, Want};
use stampede_contracts::{BlockId, Money, SeatId, SectionId, SessionId, ShowId};
use stampede_testkit::eventually;

use crate::world::{MINUTE, PATIENCE, World, best, code, place, rows, seats};

#[tokio::test]
async fn the_best_seats_are_held_with_everything_that_was_frozen() {
    let (world, _replica) = World::with_replica().await;
    let (show, layout) = world.open_section(rows(&[4, 10])).await;
    let block = layout.blocks[0].block_id;

    let before = world.now();
    let hold = world.hold(&best(&show, 2)).await.unwrap();
    assert_eq!(hold.hold_id.block(), block);
    assert_eq!((hold.show_id, hold.section_id), (show.show_id, show.sections[0].section_id));
    assert_eq!((hold.quantity, hold.state, hold.order_id), (2, HoldState::Held, None));
    assert_eq!(hold.total, Money::try_new(9_000, "EUR".parse().unwrap()).unwrap());
    assert!((before + MINUTE * 5..=world.now() + MINUTE * 5).contains(&hold.expires_at));
    assert_eq!(hold.show.title, "The Show");
    let labels: Vec<_> =
        hold.seats.iter().map(|seat| (seat.row.clone(), seat.number, seat.seat_id)).collect();
    let seat = |index| Some(SeatId { block, index });
    assert_eq!(labels, [(Some("A".into()), Some(1), seat(0)), (Some("A".into()), Some(2), seat(1))]);
    assert_eq!(hold.seats[0].section, "Section 0");
    assert_eq!(world.get(&hold).await.unwrap(), hold);

    let three = world.hold(&best(&show, 3)).await.unwrap();
    assert!(
        three.seats.iter().all(|seat| seat.row.as_deref() == Some("B")),
        "together in the next row: {three:?}"
    );
    world.check().await;
}

#[tokio::test]
async fn chosen_seats_are_held_or_taken() {
    let (world, _replica) = World::with_replica().await;
    let (show, layout) = world.open_section(rows(&[6])).await;
    let block = layout.blocks[0].block_id;

    let hold = world.hold(&seats(&show, &[(block, 5), (block, 0)])).await.unwrap();
    let numbers: Vec<_> = hold.seats.iter().map(|seat| seat.number.unwrap()).collect();
    assert_eq!(numbers, [1, 6]);
    assert_eq!(code(world.hold(&seats(&show, &[(block, 5), (block, 4)])).await), "seats_taken");
    assert_eq!(code(world.hold(&seats(&show, &[(block, 6)])).await), "seat_not_found");
    assert_eq!(code(world.hold(&seats(&show, &[(BlockId::from_number(999), 0)])).await), "seat_not_found");
    assert_eq!(code(world.hold(&seats(&show, &[(block, 2), (block, 2)])).await), "validation_failed");
    world.check().await;
}

#[tokio::test]
async fn a_section_of_several_blocks_is_sold_to_the_last_seat_and_no_further() {
    let (world, _replica) = World::with_replica().await;
    let (show, layout) = world
        .open_section(Seating::Rows(
            (0..2)
                .flat_map(|_| match rows(&[600]) {
                    Seating::Rows(rows) => rows,
                    Seating::GeneralAdmission(_) => Vec::new(),
                })
                .collect(),
        ))
        .await;
    assert_eq!(layout.blocks.len(), 2);
    let [first, second] = [layout.blocks[0].block_id, layout.blocks[1].block_id];
    assert_eq!(code(world.hold(&seats(&show, &[(first, 0), (second, 0)])).await), "seats_span_blocks");

    // All but 3 seats of one block and 2 of the other are gone.
    for (block, left) in [(first, 3), (second, 2)] {
        sqlx::query("UPDATE block SET seats = repeat('f', $2) || repeat('b', 600 - $2), free = $2, blocked = 600 - $2 WHERE id = $1")
            .bind(block.number())
            .bind(left)
            .execute(world.pool())
            .await
            .unwrap();
    }
    let hold = world.hold(&best(&show, 3)).await.unwrap();
    assert_eq!(hold.hold_id.block(), first, "the only block with room, wherever the session begins to look");
    assert_eq!(code(world.hold(&best(&show, 3)).await), "seats_taken");
    let hold = world.hold(&best(&show, 2)).await.unwrap();
    assert_eq!(hold.hold_id.block(), second);
    assert_eq!(code(world.hold(&best(&show, 1)).await), "seats_taken");

    // A refusal is believed for a moment only.
    world.release(&hold).await.unwrap();
    eventually(PATIENCE, async || world.hold(&best(&show, 1)).await.is_ok()).await;
    world.check().await;
}

#[tokio::test]
async fn a_block_named_by_another_node_answers_for_itself() {
    use stampede_contracts::inventory::{Hold, HoldAnswer};
    let (world, _replica) = World::with_replica().await;
    let (show, layout) = world.open_section(Seating::GeneralAdmission(5)).await;
    let block = layout.blocks[0].block_id;
    let in_block = |quantity| PlaceHold { block: Some(block), ..best(&show, quantity) };
    let held = world.call::<Hold>(&world.gateway, &in_block(3)).await.unwrap();
    assert!(matches!(held, HoldAnswer::Held(_)));
    let full = world.call::<Hold>(&world.gateway, &in_block(3)).await.unwrap();
    assert_eq!(full, HoldAnswer::Full { block, version: 2, largest: 2 });
    let unknown = PlaceHold { block: Some(BlockId::from_number(999)), ..best(&show, 1) };
    assert_eq!(code(world.hold(&unknown).await), "section_not_found");
}

#[tokio::test]
async fn general_admission_has_places_without_numbers() {
    let (world, _replica) = World::with_replica().await;
    let (show, layout) = world.open_section(Seating::GeneralAdmission(10)).await;
    let hold = world.hold(&best(&show, 3)).await.unwrap();
    assert_eq!(hold.seats.len(), 3);
    assert!(
        hold.seats.iter().all(|seat| seat.seat_id.is_none() && seat.row.is_none() && seat.number.is_none())
    );
    let chosen = seats(&show, &[(layout.blocks[0].block_id, 0)]);
    assert_eq!(code(world.hold(&chosen).await), "seat_not_found");
    world.check().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let (world, _replica) = World::with_replica().await;
    let (show, _) = world.open_section(rows(&[20])).await;
    for quantity in [0, 9, u32::MAX] {
        let problem = world.hold(&best(&show, quantity)).await.unwrap_err();
        assert_eq!(problem.code.as_str(), "validation_failed", "{quantity}");
        assert_eq!(problem.detail.as_deref(), Some("between 1 and 8 seats can be held at once"));
    }
    assert_eq!(code(world.hold(&seats(&show, &[])).await), "validation_failed");
    let nowhere = PlaceHold { show: ShowId::new(), ..best(&show, 1) };
    assert_eq!(code(world.hold(&nowhere).await), "show_not_found");
    let want = Want::Best { section: SectionId::new(), quantity: 1 };
    assert_eq!(code(world.hold(&place(SessionId::new(), show.show_id, want)).await), "section_not_found");
}

#[tokio::test]
async fn the_same_key_gets_the_same_reply_whatever_happened_since() {
    let (world, replica) = World::with_replica().await;
    let (show, _) = world.open_section(rows(&[2])).await;
    let request = best(&show, 2);
    let hold = world.hold(&request).await.unwrap();
    assert_eq!(world.hold(&request).await.unwrap(), hold);
    assert_eq!(code(world.hold(&best(&show, 1)).await), "seats_taken");
    assert_eq!(world.hold(&request).await.unwrap(), hold, "though it is known to be full");

    let another_body = PlaceHold { fingerprint: "another".into(), ..request.clone() };
    assert_eq!(code(world.hold(&another_body).await), "key_reused");
    let another_show = PlaceHold { show: ShowId::new(), ..another_body };
    assert_eq!(code(world.hold(&another_show).await), "key_reused");
    let by_another_key = PlaceHold {
        fingerprint: "new".into(),
        other_fingerprints: vec![request.fingerprint.clone()],
        ..request.clone()
    };
    assert_eq!(world.hold(&by_another_key).await.unwrap(), hold, "while the key of fingerprints is replaced");
    let another_session = PlaceHold { session: SessionId::new(), ..request.clone() };
    assert_eq!(code(world.hold(&another_session).await), "seats_taken", "keys belong to sessions");

    world.release(&hold).await.unwrap();
    assert_eq!(world.hold(&request).await.unwrap(), hold, "the reply of then");
    world.advance(MINUTE * 60 * 11);
    assert_eq!(world.hold(&request).await.unwrap(), hold, "the show has begun");
    replica.end().await;
    let _replica = world.replica().await;
    assert_eq!(world.hold(&request).await.unwrap(), hold, "another process");
    world.check().await;
}

#[tokio::test]
async fn a_refused_key_may_succeed_later() {
    let (world, _replica) = World::with_replica().await;
    let (show, _) = world.open_section(rows(&[2])).await;
    let first = world.hold(&best(&show, 2)).await.unwrap();
    let request = best(&show, 1);
    assert_eq!(code(world.hold(&request).await), "seats_taken");
    world.release(&first).await.unwrap();
    eventually(PATIENCE, async || world.hold(&request).await.is_ok()).await;
    world.check().await;
}

#[tokio::test]
async fn a_session_has_one_live_hold_of_a_show() {
    let (world, _replica) = World::with_replica().await;
    let (show, layout) = world.open_section(rows(&[10])).await;
    let first = world.hold(&best(&show, 1)).await.unwrap();
    let second = PlaceHold { session: first.session, ..best(&show, 1) };
    let problem = world.hold(&second).await.unwrap_err();
    assert_eq!((problem.code.as_str(), problem.hold_id), ("hold_exists", Some(first.hold_id)));

    let (other_show, _) = world.open_section(rows(&[10])).await;
    let elsewhere = PlaceHold { session: first.session, ..best(&other_show, 1) };
    assert!(world.hold(&elsewhere).await.is_ok(), "another show is another matter");

    let attach = world.attach_of(&first);
    world.attach(&attach).await.unwrap();
    assert_eq!(code(world.hold(&second).await), "hold_exists", "attached is live");
    world.confirm(&crate::world::of_order(&attach)).await.unwrap();
    let more = world.hold(&second).await.unwrap();
    assert_eq!(more.hold_id.block(), layout.blocks[0].block_id);
    world.check().await;
}

#[tokio::test]
async fn seats_are_held_between_the_opening_of_the_sale_and_the_start_of_the_show() {
    let (world, _replica) = World::with_replica().await;
    let mut show = world.show(&[rows(&[10])]);
    show.sale_opens_at = world.now() + MINUTE;
    show.starts_at = world.now() + MINUTE * 3;
    world.open(&show).await;
    let request = best(&show, 1);
    assert_eq!(code(world.hold(&request).await), "not_on_sale");
    world.advance(MINUTE);
    assert!(world.hold(&request).await.is_ok());
    world.advance(MINUTE * 2);
    assert_eq!(code(world.hold(&best(&show, 1)).await), "not_on_sale");
}
