//! Orders that end without a sale.

use reqwest::StatusCode;
use stampede_contracts::api::OrderState;
use stampede_contracts::command::{MailKind, PaymentAction};
use stampede_contracts::event::PaymentOutcome;
use stampede_contracts::inventory::HoldState;
use stampede_testkit::eventually;

use crate::client::{Cart, SHORT_MS, told};
use crate::players::{Balance, Manner};
use crate::stage::{PATIENCE, Stage};

#[tokio::test]
async fn a_decline_gives_the_hold_back_and_another_card_can_be_tried() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    stage.payments.set(PaymentAction::Authorise, Manner::Declines);
    let cart = stage.cart();

    let answer = node.place(&cart).await;
    assert_eq!(answer.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(answer.code(), "payment_declined");
    assert!(answer.body.contains("insufficient_funds"), "{answer:?}");
    assert_eq!(stage.inventory.state(cart.hold), HoldState::Held);
    assert_eq!(node.place(&cart).await, answer, "the reply is stored");

    stage.payments.set(PaymentAction::Authorise, Manner::Good);
    let second = Cart { key: "another".into(), ..cart };
    assert_eq!(node.place(&second).await.status, StatusCode::CREATED);
    let declined = stage.payments.command(PaymentAction::Authorise).order_id;
    assert_eq!(stage.notify.mails(declined), [], "the answer said it all");
}

#[tokio::test]
async fn the_reason_of_a_refusal_stays_inside() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    stage.payments.set(PaymentAction::Authorise, Manner::Refuses);
    let answer = node.place(&stage.cart()).await;
    assert_eq!(answer.status, StatusCode::PAYMENT_REQUIRED);
    assert!(!answer.body.contains("internal detail"), "{answer:?}");
}

#[tokio::test]
async fn a_decline_after_a_202_detaches_too_and_is_told_by_mail() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    stage.payments.set(PaymentAction::Authorise, Manner::Mute);
    let cart = stage.cart();
    let answer = node.place_within(&cart, SHORT_MS).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let order = answer.order();

    eventually(PATIENCE, async || stage.payments.received(PaymentAction::Authorise) > 0).await;
    let authorise = stage.payments.command(PaymentAction::Authorise);
    stage.payments.publish(&authorise, PaymentOutcome::Declined { reason: "card_declined".into() }).await;
    node.reaches(order.order_id, cart.session, OrderState::Declined).await;
    assert_eq!(stage.inventory.state(cart.hold), HoldState::Held);
    assert_eq!(node.place(&cart).await, answer);
    eventually(PATIENCE, async || stage.notify.mails(order.order_id) == [MailKind::Failed]).await;
    let timeline = told(&node.order(order.order_id, cart.session).await);
    for line in ["authorise refused", "detach done", "order declined"] {
        assert!(timeline.contains(&line.to_owned()), "{line} in {timeline:?}");
    }
}

#[tokio::test]
async fn a_hold_that_is_gone_is_409_and_one_of_somebody_else_404() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    let cart = stage.cart();
    stage.inventory.lose(cart.hold);
    let answer = node.place(&cart).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::CONFLICT, "hold_gone"));
    assert_eq!(node.place(&cart).await, answer);

    let other = stage.cart();
    let thief = Cart { hold: other.hold, body: other.body.clone(), ..stage.cart() };
    let answer = node.place(&thief).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "hold_not_found"));
    assert_eq!(stage.payments.received(PaymentAction::Authorise), 0);
}

#[tokio::test]
async fn seats_that_are_lost_before_the_sale_void_the_authorisation() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    stage.payments.set(PaymentAction::Authorise, Manner::Mute);
    let cart = stage.cart();
    let (answer, ()) = tokio::join!(node.place(&cart), async {
        eventually(PATIENCE, async || stage.payments.received(PaymentAction::Authorise) > 0).await;
        stage.inventory.lose(cart.hold);
        let authorise = stage.payments.command(PaymentAction::Authorise);
        stage.payments.publish(&authorise, PaymentOutcome::Succeeded { reference: "auth_1".into() }).await;
    });
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::CONFLICT, "order_failed"));
    assert_eq!(stage.payments.received(PaymentAction::Capture), 0);
    assert_eq!(stage.payments.received(PaymentAction::Void), 1);
}

#[tokio::test]
async fn a_refused_capture_releases_sold_seats_and_voids() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    stage.payments.set(PaymentAction::Capture, Manner::Refuses);
    let cart = stage.cart();
    let answer = node.place(&cart).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::CONFLICT, "order_failed"));
    assert_eq!(stage.inventory.state(cart.hold), HoldState::Freed);
    let order = stage.payments.command(PaymentAction::Capture).order_id;
    let expected = Balance { authorised: 9_000, voided: 9_000, ..Balance::default() };
    assert_eq!(stage.payments.balance(order), expected);
    assert!(node.order(order, cart.session).await.tickets.is_empty());
}

/// As if all of it had passed since the orders were placed.
async fn the_time_to_decide_is_over(stage: &Stage) {
    let over = "UPDATE orders SET decide_by = now() - interval '1 second'";
    sqlx::query(over).execute(stage.database.pool()).await.unwrap();
}

#[tokio::test]
async fn an_order_that_is_not_decided_in_time_frees_its_seats_first_and_fails_when_the_money_is_settled() {
    let stage = Stage::set().await;
    let node = stage.node(&[("RETRY_AFTER_MS", "300")]).await;
    stage.payments.set(PaymentAction::Authorise, Manner::Silent);
    stage.payments.set(PaymentAction::Void, Manner::Silent);
    let cart = stage.cart();
    let answer = node.place_within(&cart, SHORT_MS).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let order = answer.order().order_id;
    eventually(PATIENCE, async || stage.payments.received(PaymentAction::Authorise) > 0).await;
    the_time_to_decide_is_over(&stage).await;

    // Released although nothing is known of the money.
    eventually(PATIENCE, async || stage.inventory.state(cart.hold) == HoldState::Freed).await;
    node.reaches(order, cart.session, OrderState::Failing).await;
    eventually(PATIENCE, async || stage.payments.received(PaymentAction::Void) > 0).await;
    let token: Option<String> =
        sqlx::query_scalar("SELECT card_token FROM orders").fetch_one(stage.database.pool()).await.unwrap();
    assert_eq!(token, None);
    let sent = stage.payments.received(PaymentAction::Authorise);

    stage.payments.set(PaymentAction::Void, Manner::Good);
    node.reaches(order, cart.session, OrderState::Failed).await;
    assert_eq!(stage.payments.received(PaymentAction::Authorise), sent, "given up, so never sent again");
    assert_eq!(stage.payments.received(PaymentAction::Capture), 0);
    eventually(PATIENCE, async || stage.notify.mails(order) == [MailKind::Failed]).await;

    // The authorisation that comes now finds the void's tombstone, and its result changes nothing.
    stage.payments.set(PaymentAction::Authorise, Manner::Good);
    let authorise = stage.payments.command(PaymentAction::Authorise);
    stage.payments.publish(&authorise, PaymentOutcome::Succeeded { reference: "late".into() }).await;
    // A later purchase comes through the same stream, behind it.
    assert_eq!(node.place(&stage.cart()).await.status, StatusCode::CREATED);
    let order = node.order(order, cart.session).await;
    assert_eq!(order.state, OrderState::Failed);
    assert!(told(&order).contains(&"authorise given_up".to_owned()), "{:?}", told(&order));
}

#[tokio::test]
async fn the_clock_means_nothing_behind_the_pivot() {
    let stage = Stage::set().await;
    let node = stage.node(&[("RETRY_AFTER_MS", "300")]).await;
    stage.payments.set(PaymentAction::Capture, Manner::Silent);
    let cart = stage.cart();
    let order = node.place_within(&cart, SHORT_MS).await.order().order_id;
    eventually(PATIENCE, async || stage.payments.received(PaymentAction::Capture) > 0).await;
    // Repeated beyond the deadline, until the outcome is known.
    the_time_to_decide_is_over(&stage).await;
    let sent = stage.payments.received(PaymentAction::Capture);
    eventually(PATIENCE, async || stage.payments.received(PaymentAction::Capture) > sent).await;
    assert_eq!(node.order(order, cart.session).await.state, OrderState::Pending);

    stage.payments.set(PaymentAction::Capture, Manner::Good);
    node.reaches(order, cart.session, OrderState::Confirmed).await;
    assert_eq!(stage.inventory.state(cart.hold), HoldState::Sold);
}
