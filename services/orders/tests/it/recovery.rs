//! Lost messages, doubled ones, and crashes between any two steps.

use std::collections::HashSet;

use async_nats::jetstream::stream::DiscardPolicy;
use reqwest::StatusCode;
use stampede_bus::{Delivery, Failure, Message, Verdict};
use stampede_contracts::api::OrderState;
use stampede_contracts::command::{PaymentAction, PaymentCommand};
use stampede_contracts::event::{MailResult, PaymentOutcome};
use stampede_contracts::inventory::HoldState;
use stampede_contracts::{OrderId, StepId};
use stampede_orders::events;
use stampede_testkit::eventually;

use crate::client::{Cart, Node, SHORT_MS, told};
use crate::players::{Balance, Manner};
use crate::purchase::SOLD;
use crate::stage::{PATIENCE, Stage};

/// Small patience, so that what was lost is soon sent again.
pub const EAGER: &[(&str, &str)] = &[
    ("RETRY_AFTER_MS", "200"),
    ("RETRY_MAX_MS", "1000"),
    ("MAIL_AGAIN_AFTER_MS", "200"),
    ("MAIL_AGAIN_MAX_MS", "1000"),
];
/// The same, with the defaults for mails.
const EAGER_BUT_FOR_MAILS: &[(&str, &str)] = &[("RETRY_AFTER_MS", "200"), ("RETRY_MAX_MS", "1000")];

async fn order_of(stage: &Stage) -> OrderId {
    let id: uuid::Uuid =
        sqlx::query_scalar("SELECT order_id FROM orders").fetch_one(stage.database.pool()).await.unwrap();
    OrderId::from_uuid(id)
}

#[tokio::test]
async fn lost_results_are_asked_for_again_with_the_same_key() {
    let stage = Stage::set().await;
    let node = stage.node(EAGER).await;
    for action in [PaymentAction::Authorise, PaymentAction::Capture] {
        stage.payments.set(action, Manner::Mute);
        let cart = stage.cart();
        let answer = node.place_within(&cart, SHORT_MS).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        eventually(PATIENCE, async || stage.payments.received(action) >= 3).await;
        stage.payments.set(action, Manner::Good);

        let order = answer.order().order_id;
        node.reaches(order, cart.session, OrderState::Confirmed).await;
        assert_eq!(stage.payments.balance(order), SOLD);
        let (steps, ids) = (stage.payments.steps(action), stage.payments.message_ids(action));
        let of_last = |index: usize| steps[index] == *steps.last().unwrap();
        let ids: Vec<&String> =
            ids.iter().enumerate().filter(|(index, _)| of_last(*index)).map(|(_, id)| id).collect();
        assert_eq!(*ids[1], format!("{}.1", ids[0]), "another message id for JetStream, the same step");
        let timeline = told(&node.order(order, cart.session).await);
        assert!(timeline.contains(&format!("{} repeated", action.as_str())), "{timeline:?}");
    }
}

#[tokio::test]
async fn a_result_that_comes_twice_changes_nothing() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    let cart = stage.cart();
    let answer = node.place(&cart).await;
    let order = answer.order().order_id;
    for action in [PaymentAction::Authorise, PaymentAction::Capture] {
        let command = stage.payments.command(action);
        let again = PaymentOutcome::Succeeded { reference: "again".into() };
        stage.payments.publish(&command, again.clone()).await;
        // Under another id the inbox does not know it; the step does.
        stage.payments.publish_as(format!("other.{action:?}"), &command, again).await;
        let refused = PaymentOutcome::Refused { reason: "after all".into() };
        stage.payments.publish_as(format!("third.{action:?}"), &command, refused).await;
    }
    // A later purchase comes through the same stream, behind them.
    assert_eq!(node.place(&stage.cart()).await.status, StatusCode::CREATED);
    assert_eq!(node.order(order, cart.session).await.state, OrderState::Confirmed);
    assert_eq!(node.order(order, cart.session).await.tickets, answer.order().tickets);
    assert_eq!(stage.payments.balance(order), SOLD);
    assert_eq!(stage.dead_letters().await, 0);
}

#[tokio::test]
async fn a_result_nobody_waits_for_is_laid_aside_and_holds_nobody_back() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    let cart = stage.cart();
    let order = node.place(&cart).await.order().order_id;
    let done = PaymentOutcome::Succeeded { reference: "x".into() };
    let capture = stage.payments.command(PaymentAction::Capture);
    let stray = PaymentCommand { order_id: OrderId::new(), step_id: StepId::new(), ..capture.clone() };
    stage.payments.publish(&stray, done.clone()).await;
    // Nobody speaks for another's step: this one is a capture.
    let wrong = PaymentCommand { action: PaymentAction::Refund, ..capture };
    stage.payments.publish(&wrong, done).await;
    let unreadable = Message { payload: b"{}".to_vec(), ..stage.payments.message(&stray) };
    stage.operator.publish_all(&[unreadable]).await.pop().unwrap().unwrap();

    eventually(PATIENCE, async || stage.dead_letters().await == 3).await;
    assert_eq!(node.place(&stage.cart()).await.status, StatusCode::CREATED);
    assert_eq!(node.order(order, cart.session).await.state, OrderState::Confirmed);
}

#[tokio::test]
async fn one_bad_result_of_a_batch_does_not_hold_back_the_others() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    stage.payments.set(PaymentAction::Capture, Manner::Mute);
    let (bad, good) = (stage.cart(), stage.cart());
    for cart in [&bad, &good] {
        assert_eq!(node.place_within(cart, SHORT_MS).await.status, StatusCode::ACCEPTED);
    }
    eventually(PATIENCE, async || {
        stage.payments.steps(PaymentAction::Capture).into_iter().collect::<HashSet<_>>().len() == 2
    })
    .await;
    node.crash();
    // Somebody has a ticket for a seat of the first order already: against all rules, and the database says no.
    let sql = "INSERT INTO ticket (ticket_id, order_id, show_id, seat, label, code, created_at)
        SELECT gen_random_uuid(), order_id, show_id, seats->0->>'seat_id', seats->0, '', now()
        FROM orders WHERE hold_id = $1";
    sqlx::query(sql).bind(bad.hold.uuid()).execute(stage.database.pool()).await.unwrap();

    let of = async |cart: &Cart| -> Delivery {
        let order = sqlx::query_scalar("SELECT order_id FROM orders WHERE hold_id = $1");
        let order = order.bind(cart.hold.uuid()).fetch_one(stage.database.pool()).await.unwrap();
        let capture = stage.payments.command_of(OrderId::from_uuid(order), PaymentAction::Capture);
        Delivery {
            message: stage.payments.message(&capture),
            delivered: 1,
            stream_sequence: 1,
            replay_of: None,
        }
    };
    let app = stage.app().await;
    let take = async |batch| events::on_payments(app.clone(), batch).await;
    let (bad_one, good_one) = (of(&bad).await, of(&good).await);
    // The consumer then tries smaller batches, until only the one at fault becomes a dead letter.
    for batch in [vec![bad_one.clone(), good_one.clone()], vec![bad_one.clone()]] {
        assert!(matches!(take(batch).await, Err(Failure::Fault(_))));
    }
    assert_eq!(take(vec![good_one]).await.unwrap(), [Verdict::Done]);

    let state = async |cart: &Cart| -> String {
        let state = sqlx::query_scalar("SELECT state FROM orders WHERE hold_id = $1");
        state.bind(cart.hold.uuid()).fetch_one(stage.database.pool()).await.unwrap()
    };
    assert_eq!((state(&bad).await.as_str(), state(&good).await.as_str()), ("pending", "confirmed"));

    // Nor does an order that cannot be read.
    let spoil = sqlx::query("UPDATE orders SET currency = '?' WHERE hold_id = $1").bind(bad.hold.uuid());
    spoil.execute(stage.database.pool()).await.unwrap();
    assert!(matches!(take(vec![bad_one]).await, Err(Failure::Fault(_))));
}

#[tokio::test]
async fn a_silent_inventory_is_asked_again_with_the_same_key() {
    let stage = Stage::set().await;
    let node = stage.node(EAGER).await;
    for function in ["attach", "confirm"] {
        stage.inventory.set(function, Manner::Mute);
        let cart = stage.cart();
        let before = stage.inventory.asked(function);
        let answer = node.place_within(&cart, SHORT_MS).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        eventually(PATIENCE, async || stage.inventory.asked(function) >= before + 2).await;
        stage.inventory.set(function, Manner::Good);
        node.reaches(answer.order().order_id, cart.session, OrderState::Confirmed).await;
    }
    assert_eq!(stage.inventory.keys("attach"), 2, "one key an order");
    assert_eq!(stage.inventory.keys("confirm"), 2);
}

/// What stands still when the node crashes.
#[derive(Debug, Clone, Copy)]
enum At {
    Inventory(&'static str),
    Payments(PaymentAction),
}

impl At {
    fn set(self, stage: &Stage, manner: Manner) {
        match self {
            Self::Inventory(function) => stage.inventory.set(function, manner),
            Self::Payments(action) => stage.payments.set(action, manner),
        }
    }

    fn asked(self, stage: &Stage) -> usize {
        match self {
            Self::Inventory(function) => stage.inventory.asked(function),
            Self::Payments(action) => stage.payments.received(action),
        }
    }
}

/// Lets an order come as far as `at`, crashes its node there, and starts another.
async fn crash(stage: &Stage, cart: &Cart, at: At, manner: Manner) -> Node {
    let node = stage.node(EAGER).await;
    at.set(stage, manner);
    let request = tokio::spawn(node.placing(cart, 10_000).send());
    eventually(PATIENCE, async || at.asked(stage) > 0).await;
    node.crash();
    request.abort();
    at.set(stage, Manner::Good);
    stage.node(EAGER).await
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_purchase_is_survived() {
    for at in [
        At::Inventory("attach"),
        At::Payments(PaymentAction::Authorise),
        At::Inventory("confirm"),
        At::Payments(PaymentAction::Capture),
    ] {
        for manner in [Manner::Silent, Manner::Mute] {
            let stage = Stage::set().await;
            let cart = stage.cart();
            let node = crash(&stage, &cart, at, manner).await;
            let order = order_of(&stage).await;
            node.reaches(order, cart.session, OrderState::Confirmed).await;
            assert_eq!(stage.payments.balance(order), SOLD, "{at:?} {manner:?}");
            assert_eq!(stage.inventory.state(cart.hold), HoldState::Sold);
            // Whoever asks again gets the answer that the first request never got.
            let answer = node.place(&cart).await;
            assert_eq!(answer.status, StatusCode::CREATED, "{at:?} {manner:?}");
            assert_eq!(answer.order().tickets.len(), 2);
        }
    }
}

#[tokio::test]
async fn a_crash_while_a_decline_is_undone_is_survived() {
    let stage = Stage::set().await;
    stage.payments.set(PaymentAction::Authorise, Manner::Declines);
    let cart = stage.cart();
    let node = crash(&stage, &cart, At::Inventory("detach"), Manner::Silent).await;
    assert_eq!(node.place(&cart).await.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(stage.inventory.state(cart.hold), HoldState::Held);
}

#[tokio::test]
async fn a_crash_at_any_step_of_an_undoing_is_survived() {
    for at in [At::Inventory("free"), At::Payments(PaymentAction::Void)] {
        let stage = Stage::set().await;
        stage.payments.set(PaymentAction::Capture, Manner::Refuses);
        let cart = stage.cart();
        let node = crash(&stage, &cart, at, Manner::Silent).await;
        assert_eq!(node.place(&cart).await.code(), "order_failed");
        let order = order_of(&stage).await;
        let expected = Balance { authorised: 9_000, voided: 9_000, ..Balance::default() };
        assert_eq!(stage.payments.balance(order), expected, "{at:?}");
        assert_eq!(stage.inventory.state(cart.hold), HoldState::Freed);
    }
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_cancellation_is_survived() {
    for at in [At::Inventory("free"), At::Payments(PaymentAction::Refund)] {
        let stage = Stage::set().await;
        let cart = stage.cart();
        let node = stage.node(EAGER).await;
        let order = node.place(&cart).await.order().order_id;
        at.set(&stage, Manner::Silent);
        let answer = node.cancel_within(order, cart.session, SHORT_MS).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        eventually(PATIENCE, async || at.asked(&stage) > 0).await;
        node.crash();
        at.set(&stage, Manner::Good);

        let node = stage.node(EAGER).await;
        node.reaches(order, cart.session, OrderState::Cancelled).await;
        assert_eq!(stage.payments.balance(order).refunded, 9_000, "{at:?}");
        assert_eq!(stage.inventory.state(cart.hold), HoldState::Freed);
    }
}

#[tokio::test]
async fn mails_are_sent_again_until_they_are_sent() {
    let stage = Stage::set().await;
    let node = stage.node(EAGER).await;
    stage.notify.set(Manner::Silent);
    let cart = stage.cart();
    let order = node.place(&cart).await.order().order_id;
    let repeated = async |line: &str| told(&node.order(order, cart.session).await).contains(&line.to_owned());
    eventually(PATIENCE, async || repeated("notify repeated").await).await;

    // An operator gave it up, and sent it again later.
    stage.notify.set(Manner::Refuses);
    eventually(PATIENCE, async || repeated("notify refused").await).await;
    stage.notify.set(Manner::Good);
    let step: uuid::Uuid = sqlx::query_scalar("SELECT step_id FROM step WHERE kind = 'notify_tickets'")
        .fetch_one(stage.database.pool())
        .await
        .unwrap();
    let mail = MailResult { step_id: StepId::from_uuid(step), order_id: order, sent: true };
    let message = Message::new(&mail, "sent-after-all").unwrap();
    stage.operator.publish_all(&[message]).await.pop().unwrap().unwrap();
    eventually(PATIENCE, async || repeated("notify done").await).await;
}

#[tokio::test]
async fn losing_all_of_jetstream_loses_no_order() {
    let mut stage = Stage::set().await;
    let node = stage.node(EAGER).await;
    stage.payments.set(PaymentAction::Authorise, Manner::Silent);
    let cart = stage.cart();
    let answer = node.place_within(&cart, SHORT_MS).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    eventually(PATIENCE, async || stage.payments.received(PaymentAction::Authorise) > 0).await;

    stage.nats.lose_store().await;
    eventually(PATIENCE, async || stage.operator.is_connected()).await;
    stampede_testkit::provision(stage.operator.jetstream()).await;
    stage.payments.set(PaymentAction::Authorise, Manner::Good);
    let order = answer.order().order_id;
    eventually(PATIENCE * 2, async || node.order(order, cart.session).await.state == OrderState::Confirmed)
        .await;
    assert_eq!(stage.payments.balance(order), SOLD);
}

#[tokio::test]
async fn while_nats_is_away_orders_are_taken_and_wait() {
    let mut stage = Stage::set().await;
    let node = stage.node(EAGER).await;
    stage.nats.stop();
    let cart = stage.cart();
    let answer = node.place_within(&cart, SHORT_MS).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");

    stage.nats.restart().await;
    let order = answer.order().order_id;
    eventually(PATIENCE * 2, async || node.order(order, cart.session).await.state == OrderState::Confirmed)
        .await;
    assert_eq!(stage.payments.balance(order), SOLD);
}

/// What a mail that waits in the outbox would be after five minutes of sales: more than any window, in every partition.
async fn many_mails_wait(stage: &Stage) {
    let sql = "INSERT INTO outbox (partition, aggregate, subject, ce_id, ce_source, ce_type, ce_time, msg_id, payload,
            created_at)
        SELECT n % 8, n, 'cmd.notify.tickets', n, 'orders', 'stampede.notify.command.v1', now(), n, '{}', now() - interval '1 minute'
        FROM generate_series(1, 4000) AS n";
    sqlx::query(sql).execute(stage.database.pool()).await.unwrap();
}

async fn mails_in_the_outbox(stage: &Stage) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM outbox WHERE subject LIKE 'cmd.notify.%'")
        .fetch_one(stage.database.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_queue_of_mails_that_is_gone_or_full_stops_no_sale() {
    for is_gone in [true, false] {
        let stage = Stage::set().await;
        let jetstream = stage.operator.jetstream();
        let mut config = jetstream.get_stream("CMD_NOTIFY").await.unwrap().cached_info().config.clone();
        if is_gone {
            jetstream.delete_stream("CMD_NOTIFY").await.unwrap();
        } else {
            jetstream.delete_consumer_from_stream("notify", "CMD_NOTIFY").await.unwrap();
            (config.max_messages, config.discard) = (1, DiscardPolicy::New);
            jetstream.update_stream(&config).await.unwrap();
            jetstream.publish("cmd.notify.first", "".into()).await.unwrap().await.unwrap();
        }
        let node = stage.node(EAGER).await;
        many_mails_wait(&stage).await;
        for sold in 1..=3 {
            assert_eq!(node.place(&stage.cart()).await.status, StatusCode::CREATED, "{is_gone}");
            assert_eq!(mails_in_the_outbox(&stage).await, 4_000 + sold);
        }

        // The sweeper adds nothing to a blocked lane, however long it is: this step is its clock.
        stage.payments.set(PaymentAction::Authorise, Manner::Mute);
        let _waits = tokio::spawn(node.placing(&stage.cart(), 10_000).send());
        eventually(PATIENCE, async || stage.payments.received(PaymentAction::Authorise) > 6).await;
        assert_eq!(mails_in_the_outbox(&stage).await, 4_000 + 3);
    }
}

#[tokio::test]
async fn a_mail_that_its_owner_has_is_not_sent_again_every_few_seconds() {
    let stage = Stage::set().await;
    let node = stage.node(EAGER_BUT_FOR_MAILS).await;
    stage.notify.set(Manner::Silent);
    assert_eq!(node.place(&stage.cart()).await.status, StatusCode::CREATED);
    // The same sweeper sends what payments lost once, and again, and again.
    stage.payments.set(PaymentAction::Authorise, Manner::Mute);
    let _waits = tokio::spawn(node.placing(&stage.cart(), 10_000).send());
    eventually(PATIENCE, async || stage.payments.received(PaymentAction::Authorise) > 4).await;
    let attempts: Vec<i32> = sqlx::query_scalar("SELECT attempt FROM step WHERE kind = 'notify_tickets'")
        .fetch_all(stage.database.pool())
        .await
        .unwrap();
    assert_eq!(attempts, [0]);
}
