//! What can be done with money, and what is refused.

use stampede_contracts::OrderId;
use stampede_contracts::command::PaymentAction::{Capture, Refund, Void};
use stampede_payments::domain::NOTHING_TO_VOID;
use stampede_psp_sim::card::Card;

use crate::orders::{about, authorise, declined, price, reference, refused};
use crate::support::World;

#[tokio::test]
async fn a_purchase_is_authorised_captured_and_booked() {
    let (world, _replica) = World::start().await;
    let first = authorise(world.orders.place(Card::Works));
    assert!(reference(&world.orders.settle(&first).await).starts_with("auth_"));
    assert_eq!(world.balance("receivable:psp").await, 0, "a promise is not booked");

    let capture = about(&first, Capture);
    assert!(reference(&world.orders.settle(&capture).await).starts_with("cap_"));
    assert_eq!(world.balance("receivable:psp").await, price().amount());
    assert_eq!(world.balance("sales").await, -price().amount());
    assert_eq!(world.psp_ledger().await, ["authorise authorised", "capture captured"]);
    assert_eq!(world.queued().await, 0, "both commands were taken");
    world.check().await;
}

#[tokio::test]
async fn what_was_captured_is_refunded() {
    let (world, _replica) = World::start().await;
    let first = authorise(world.orders.place(Card::Works));
    world.orders.settle(&first).await;
    world.orders.settle(&about(&first, Capture)).await;
    assert!(reference(&world.orders.settle(&about(&first, Refund)).await).starts_with("ref_"));
    assert_eq!(world.balance("receivable:psp").await, 0);
    assert_eq!(world.balance("refunds").await, price().amount());
    assert_eq!(
        world.orders.settle(&about(&first, Refund)).await,
        refused("more_than_captured"),
        "nothing is given back twice"
    );
    world.check().await;
}

#[tokio::test]
async fn a_declined_card_is_told_with_the_providers_word() {
    let (world, _replica) = World::start().await;
    for (card, reason) in [(Card::Declined, "card_declined"), (Card::NoFunds, "insufficient_funds")] {
        let command = authorise(world.orders.place(card));
        assert_eq!(world.orders.settle(&command).await, declined(reason));
        assert_eq!(world.orders.settle(&about(&command, Capture)).await, refused("not_authorised"));
        assert_eq!(reference(&world.orders.settle(&about(&command, Void)).await), NOTHING_TO_VOID);
    }
    world.check().await;
}

#[tokio::test]
async fn a_card_that_is_gone_is_refused_for_good() {
    let (world, _replica) = World::start().await;
    let forgotten = OrderId::new();
    world.orders.pays_with(forgotten, None);
    for order in [forgotten, OrderId::new()] {
        let command = authorise(order);
        assert_eq!(world.orders.settle(&command).await, refused("card_token_gone"));
        assert_eq!(world.psp_status(command.step_id).await.as_deref(), Some("cancelled"), "and cannot land");
    }
    world.check().await;
}

#[tokio::test]
async fn a_refused_capture_is_final_and_the_authorisation_can_be_voided() {
    let (world, _replica) = World::start().await;
    let command = authorise(world.orders.place(Card::NoCapture));
    world.orders.settle(&command).await;
    assert_eq!(world.orders.settle(&about(&command, Capture)).await, refused("capture_not_allowed"));
    assert_eq!(world.orders.settle(&about(&command, Refund)).await, refused("not_captured"));
    assert!(reference(&world.orders.settle(&about(&command, Void)).await).starts_with("void_"));
    assert_eq!(world.count("SELECT count(*) FROM entry").await, 0, "no money moved");
    world.check().await;
}

#[tokio::test]
async fn what_was_captured_cannot_be_voided() {
    let (world, _replica) = World::start().await;
    let command = authorise(world.orders.place(Card::Works));
    world.orders.settle(&command).await;
    world.orders.settle(&about(&command, Capture)).await;
    assert_eq!(world.orders.settle(&about(&command, Void)).await, refused("already_captured"));
    world.check().await;
}

#[tokio::test]
async fn a_capture_of_nothing_is_refused() {
    let (world, _replica) = World::start().await;
    let never_sent = authorise(world.orders.place(Card::Works));
    assert_eq!(world.orders.settle(&about(&never_sent, Capture)).await, refused("unknown_authorisation"));
    assert!(world.psp_ledger().await.is_empty(), "the provider was not even asked");
    world.check().await;
}

#[tokio::test]
async fn the_card_token_is_nowhere_to_be_found() {
    let (world, _replica) = World::start().await;
    let (order, marker) = (OrderId::new(), "tok_works_0123456789abcdef0123456789abcdef");
    world.orders.pays_with(order, Some(marker.to_owned()));
    let command = authorise(order);
    reference(&world.orders.settle(&command).await);
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT operation::text FROM operation UNION ALL SELECT convert_from(payload, 'UTF8') FROM outbox",
    )
    .fetch_all(world.database.pool())
    .await
    .unwrap();
    assert!(!rows.is_empty() && rows.iter().all(|row| !row.contains("tok_")), "{rows:?}");
    for stream in ["CMD_PAYMENTS", "EVT_FACTS", "DLQ"] {
        let mut stream = world.operator.jetstream().get_stream(stream).await.unwrap();
        let state = stream.info().await.unwrap().state.clone();
        for sequence in state.first_sequence..=state.last_sequence {
            let Ok(stored) = stream.get_raw_message(sequence).await else { continue };
            assert!(!String::from_utf8_lossy(&stored.payload).contains("tok_"));
        }
    }
    let told = world.orders.results();
    assert!(told.iter().all(|(id, _)| id.ends_with(".result")), "{told:?}");
}
