//! Cancelling, in every phase.

use std::collections::HashSet;

use reqwest::StatusCode;
use stampede_contracts::api::{OrderState, TicketState};
use stampede_contracts::command::{MailKind, PaymentAction};
use stampede_contracts::event::PaymentOutcome;
use stampede_contracts::inventory::HoldState;
use stampede_contracts::{OrderId, SessionId, Timestamp};
use stampede_testkit::eventually;

use crate::client::{Cart, Node, SHORT_MS, told};
use crate::players::{Balance, Manner};
use crate::stage::{PATIENCE, Stage};

/// An order that is under way: its request got 202.
async fn under_way(node: &Node, cart: &Cart) -> OrderId {
    let answer = node.place_within(cart, SHORT_MS).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    answer.order().order_id
}

#[tokio::test]
async fn after_the_sale_tickets_are_revoked_seats_released_and_money_given_back() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    let cart = stage.cart();
    let placed = node.place(&cart).await;
    let order = placed.order().order_id;

    let answer = node.cancel(order, cart.session).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let cancelled = answer.order();
    assert_eq!(cancelled.state, OrderState::Cancelled);
    assert!(cancelled.tickets.iter().all(|ticket| ticket.state == TicketState::Revoked));
    assert_eq!(stage.inventory.state(cart.hold), HoldState::Freed);
    let expected = Balance { authorised: 9_000, captured: 9_000, refunded: 9_000, voided: 0 };
    assert_eq!(stage.payments.balance(order), expected);

    let timeline = told(&cancelled);
    let at = |line: &str| {
        timeline.iter().position(|told| told == line).unwrap_or_else(|| panic!("{line}: {timeline:?}"))
    };
    assert!(at("tickets revoked") < at("free done") && at("free done") < at("refund started"));

    // Again and again the same.
    assert_eq!(node.cancel(order, cart.session).await.status, StatusCode::OK);
    assert_eq!(stage.payments.received(PaymentAction::Refund), 1);
    assert_eq!(node.place(&cart).await, placed, "what was answered stays answered");
    eventually(PATIENCE, async || stage.notify.mails(order).contains(&MailKind::Cancelled)).await;
}

#[tokio::test]
async fn before_the_pivot_nothing_is_charged() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    stage.payments.set(PaymentAction::Authorise, Manner::Mute);
    let cart = stage.cart();
    let order = under_way(&node, &cart).await;
    eventually(PATIENCE, async || stage.payments.received(PaymentAction::Authorise) > 0).await;
    let answer = node.cancel(order, cart.session).await;
    assert_eq!((answer.status, answer.order().state), (StatusCode::OK, OrderState::Cancelled));
    assert_eq!(stage.inventory.state(cart.hold), HoldState::Freed);
    let balance = stage.payments.balance(order);
    assert_eq!((balance.captured, balance.voided), (0, 9_000));

    // The result of the authorisation, late.
    let authorise = stage.payments.command(PaymentAction::Authorise);
    stage.payments.publish(&authorise, PaymentOutcome::Succeeded { reference: "late".into() }).await;
    // A later purchase comes through the same stream, behind it.
    stage.payments.set(PaymentAction::Authorise, Manner::Good);
    assert_eq!(node.place(&stage.cart()).await.status, StatusCode::CREATED);
    assert_eq!(node.order(order, cart.session).await.state, OrderState::Cancelled);
    assert_eq!(stage.dead_letters().await, 0);
}

#[tokio::test]
async fn a_cancellation_answers_the_request_that_placed_the_order() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    stage.payments.set(PaymentAction::Authorise, Manner::Mute);
    let cart = stage.cart();
    let (placed, ()) = tokio::join!(node.place(&cart), async {
        eventually(PATIENCE, async || stage.payments.received(PaymentAction::Authorise) > 0).await;
        let order = stage.payments.command(PaymentAction::Authorise).order_id;
        assert_eq!(node.cancel(order, cart.session).await.status, StatusCode::OK);
    });
    assert_eq!((placed.status, placed.code().as_str()), (StatusCode::CONFLICT, "order_failed"));
}

#[tokio::test]
async fn while_the_attach_is_unknown_the_hold_is_let_go() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    stage.inventory.set("attach", Manner::Mute);
    let cart = stage.cart();
    let order = under_way(&node, &cart).await;
    eventually(PATIENCE, async || stage.inventory.asked("attach") > 0).await;
    let answer = node.cancel(order, cart.session).await;
    assert_eq!((answer.status, answer.order().state), (StatusCode::OK, OrderState::Cancelled));
    assert_eq!(stage.inventory.state(cart.hold), HoldState::Freed);
    assert_eq!(stage.payments.received(PaymentAction::Authorise), 0);
}

#[tokio::test]
async fn while_the_seats_are_being_sold_they_are_released() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    stage.inventory.set("confirm", Manner::Mute);
    let cart = stage.cart();
    let order = under_way(&node, &cart).await;
    eventually(PATIENCE, async || stage.inventory.asked("confirm") > 0).await;
    let answer = node.cancel(order, cart.session).await;
    assert_eq!((answer.status, answer.order().state), (StatusCode::OK, OrderState::Cancelled));
    assert_eq!(stage.inventory.state(cart.hold), HoldState::Freed);
    assert_eq!(stage.payments.balance(order).voided, 9_000);
    assert_eq!(stage.payments.received(PaymentAction::Capture), 0);
}

#[tokio::test]
async fn while_the_capture_is_open_it_is_accepted_at_once_and_refunded_when_known() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    stage.payments.set(PaymentAction::Capture, Manner::Mute);
    let cart = stage.cart();
    let order = under_way(&node, &cart).await;
    eventually(PATIENCE, async || stage.payments.received(PaymentAction::Capture) > 0).await;

    let started = std::time::Instant::now();
    let answer = node.cancel(order, cart.session).await;
    assert!(started.elapsed().as_secs() < 5, "it waits for nothing");
    assert_eq!((answer.status, answer.order().state), (StatusCode::ACCEPTED, OrderState::Pending));
    assert_eq!(answer.location, Some(format!("/v1/orders/{order}")));
    assert_eq!(node.cancel(order, cart.session).await.status, StatusCode::ACCEPTED);

    let capture = stage.payments.command(PaymentAction::Capture);
    stage.payments.publish(&capture, PaymentOutcome::Succeeded { reference: "cap_1".into() }).await;
    node.reaches(order, cart.session, OrderState::Cancelled).await;
    assert!(node.order(order, cart.session).await.tickets.is_empty(), "no ticket was ever issued");
    assert_eq!(stage.inventory.state(cart.hold), HoldState::Freed);
    assert_eq!(stage.payments.balance(order).refunded, 9_000);
}

#[tokio::test]
async fn a_refund_that_takes_long_is_accepted() {
    let stage = Stage::set().await;
    let node = stage.node(&[("RETRY_AFTER_MS", "300")]).await;
    stage.payments.set(PaymentAction::Refund, Manner::Silent);
    let cart = stage.cart();
    let order = node.place(&cart).await.order().order_id;
    let answer = node.cancel_within(order, cart.session, SHORT_MS).await;
    assert_eq!((answer.status, answer.order().state), (StatusCode::ACCEPTED, OrderState::Cancelling));
    assert_eq!(stage.inventory.state(cart.hold), HoldState::Freed, "the seats do not wait for the money");

    stage.payments.set(PaymentAction::Refund, Manner::Good);
    node.reaches(order, cart.session, OrderState::Cancelled).await;
    assert_eq!(stage.payments.balance(order).refunded, 9_000);
}

#[tokio::test]
async fn a_refund_that_is_refused_is_asked_for_again_until_the_money_is_back() {
    let stage = Stage::set().await;
    let node = stage.node(&[("REFUND_AGAIN_AFTER_MS", "200"), ("REFUND_AGAIN_MAX_MS", "300")]).await;
    stage.payments.set(PaymentAction::Refund, Manner::Refuses);
    let cart = stage.cart();
    let order = node.place(&cart).await.order().order_id;
    let answer = node.cancel_within(order, cart.session, SHORT_MS).await;
    assert_eq!((answer.status, answer.order().state), (StatusCode::ACCEPTED, OrderState::Cancelling));
    eventually(PATIENCE, async || stage.payments.received(PaymentAction::Refund) >= 3).await;
    let read = node.order(order, cart.session).await;
    assert_eq!(read.state, OrderState::Cancelling);
    let refused = read.timeline.iter().find(|entry| (&*entry.step, &*entry.state) == ("refund", "refused"));
    let detail = refused.and_then(|entry| entry.detail.as_deref()).unwrap_or_default();
    assert!(detail.contains("a person looks at it"), "{:?}", read.timeline);

    stage.payments.set(PaymentAction::Refund, Manner::Good);
    node.reaches(order, cart.session, OrderState::Cancelled).await;
    assert_eq!(stage.payments.balance(order).refunded, 9_000);
    let keys = stage.payments.steps(PaymentAction::Refund);
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len(), "every refusal keeps its key");
}

#[tokio::test]
async fn a_refused_refund_is_asked_for_again_whatever_becomes_of_the_mails() {
    let stage = Stage::set().await;
    let node = stage.node(&[("REFUND_AGAIN_AFTER_MS", "200"), ("REFUND_AGAIN_MAX_MS", "300")]).await;
    stage.notify.set(Manner::Silent);
    stage.payments.set(PaymentAction::Refund, Manner::Refuses);
    let cart = stage.cart();
    let order = node.place(&cart).await.order().order_id;
    node.cancel_within(order, cart.session, SHORT_MS).await;
    // One that was begun by a version which left it open.
    let open = "UPDATE step SET state = 'open', done_at = NULL, next_at = now() + interval '1 hour'
        WHERE kind = 'notify_tickets'";
    sqlx::query(open).execute(stage.database.pool()).await.unwrap();
    let asked = stage.payments.received(PaymentAction::Refund);
    eventually(PATIENCE, async || stage.payments.received(PaymentAction::Refund) >= asked + 2).await;
}

#[tokio::test]
async fn after_its_last_moment_it_is_too_late() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    let session = SessionId::new();
    let cart = Cart::of(session, stage.inventory.hold_until(session, Timestamp::now()));
    let order = node.place(&cart).await.order().order_id;
    let answer = node.cancel(order, session).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::CONFLICT, "cancel_too_late"));
    assert_eq!(node.order(order, session).await.state, OrderState::Confirmed);
    assert_eq!(stage.inventory.state(cart.hold), HoldState::Sold);
}

#[tokio::test]
async fn of_an_order_without_a_sale_nothing_is_left_to_cancel() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    stage.payments.set(PaymentAction::Authorise, Manner::Declines);
    let cart = stage.cart();
    node.place(&cart).await;
    let order = stage.payments.command(PaymentAction::Authorise).order_id;
    let answer = node.cancel(order, cart.session).await;
    assert_eq!((answer.status, answer.order().state), (StatusCode::OK, OrderState::Declined));
    assert_eq!(stage.inventory.state(cart.hold), HoldState::Held);
}
