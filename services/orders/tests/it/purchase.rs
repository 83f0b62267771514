//! The way of a purchase, and its answer.

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use stampede_contracts::api::{OrderState, TicketState};
use stampede_contracts::command::{MailKind, PaymentAction};
use stampede_contracts::event::PaymentOutcome;
use stampede_contracts::inventory::HoldState;
use stampede_contracts::signed::{SigningKey, TicketCode};
use stampede_contracts::{OrderId, SessionId};
use stampede_telemetry::Telemetry;
use stampede_testkit::eventually;

use crate::client::{Cart, SHORT_MS, fetch, told};
use crate::players::{Balance, Manner};
use crate::stage::{CARD, EMAIL, NAME, PATIENCE, Stage};

pub const SOLD: Balance = Balance { authorised: 9_000, voided: 0, captured: 9_000, refunded: 0 };

#[tokio::test]
async fn a_purchase_is_confirmed_with_tickets_and_repeated_byte_for_byte() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    let cart = stage.cart();

    let answer = node.place(&cart).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let order = answer.order();
    assert_eq!(answer.location, Some(format!("/v1/orders/{}", order.order_id)));
    assert_eq!(order.state, OrderState::Confirmed);
    assert_eq!(order.total.unwrap().amount(), 9_000);
    assert_eq!(order.tickets.len(), 2);
    assert!(order.order_secret.is_some() && order.trace_id.is_some());
    assert_eq!(stage.inventory.state(cart.hold), HoldState::Sold);
    assert_eq!(stage.payments.balance(order.order_id), SOLD);
    assert_eq!(stage.payments.cards(), [Some(CARD.to_owned())]);
    for traceparent in stage.payments.traceparents() {
        // The whole saga is one trace: that of the request which placed the order.
        assert!(traceparent.unwrap().contains(order.trace_id.as_ref().unwrap()));
    }

    assert_eq!(node.place(&cart).await, answer);
    assert_eq!(stage.inventory.asked("attach"), 1);

    // Scanners verify the codes offline.
    let keys: serde_json::Value =
        serde_json::from_str(&fetch(node.anonymous("/v1/ticket-keys")).await.body).unwrap();
    let signing = SigningKey::from_seed_hex(&"07".repeat(32)).unwrap();
    let key = signing.verifying_key();
    assert_eq!(keys["keys"][0]["kid"], key.kid());
    for ticket in &order.tickets {
        let claims: TicketCode = key.verify(&ticket.code).unwrap();
        assert_eq!((claims.ticket_id, claims.order_id), (ticket.ticket_id, order.order_id));
        assert_eq!(ticket.state, TicketState::Valid);
    }

    // The mail goes out, and the timeline says so.
    eventually(PATIENCE, async || {
        told(&node.order(order.order_id, cart.session).await).contains(&"notify done".to_owned())
    })
    .await;
    assert_eq!(stage.notify.mails(order.order_id), [MailKind::Tickets]);
    let buyer = stage.notify.buyers().pop().unwrap();
    assert_eq!((buyer.name.as_str(), buyer.email.as_str()), (NAME, EMAIL));
    assert_eq!(Some(&buyer.order_secret), order.order_secret.as_ref());
    assert_eq!(buyer.tickets, order.tickets);

    assert_eq!(stage.dead_letters().await, 0);
    nothing_personal_leaves(&stage).await;
    let metrics = Telemetry::installed().unwrap().metrics().render().unwrap();
    assert!(metrics.contains("stampede_orders_settled_total{") && metrics.contains("state=\"confirmed\""));
    let violations = "stampede_bus_permission_violations_total{";
    assert!(!metrics.contains(violations), "{metrics}");

    // While keys are replaced, a replica that has the new ones first repeats what was answered under the old ones.
    let (old, new) = ("07".repeat(32), "08".repeat(32));
    let both = format!("{new},{old}");
    let successor = stage.node(&[("TICKET_SIGNING_KEY", &both), ("FINGERPRINT_KEY", &both)]).await;
    assert_eq!(successor.place(&cart).await, answer);
    let keys: serde_json::Value =
        serde_json::from_str(&fetch(successor.anonymous("/v1/ticket-keys")).await.body).unwrap();
    let successors = SigningKey::from_seed_hex(&new).unwrap().verifying_key();
    assert_eq!(
        (&keys["keys"][0]["kid"], &keys["keys"][1]["kid"]),
        (&json!(successors.kid()), &json!(key.kid()))
    );
    // Whichever replica takes the last result signs: from now on that is the new one.
    node.crash();
    eventually(PATIENCE, async || {
        let sold = successor.place(&stage.cart()).await.order();
        sold.tickets.first().is_some_and(|ticket| successors.verify::<TicketCode>(&ticket.code).is_ok())
    })
    .await;
}

async fn nothing_personal_leaves(stage: &Stage) {
    let published = stage.everything_published().await;
    assert!(published.contains("stampede.orders.order.v1"), "{published}");
    for marker in [NAME, EMAIL, CARD, "marker"] {
        assert!(!published.contains(marker), "{marker} in {published}");
    }
    let cards: i64 = sqlx::query_scalar("SELECT count(card_token) FROM orders")
        .fetch_one(stage.database.pool())
        .await
        .unwrap();
    assert_eq!(cards, 0, "no order keeps its card token");
}

#[tokio::test]
async fn a_purchase_costs_five_writing_transactions() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    stage.notify.set(Manner::Silent);
    stage.count_writes().await;
    for number in 1..=5 {
        assert_eq!(node.place(&stage.cart()).await.status, StatusCode::CREATED);
        assert!(stage.writes().await <= 5 * number, "{} transactions", stage.writes().await);
    }
}

#[tokio::test]
async fn purchases_do_not_get_into_each_others_way() {
    let stage = Stage::set().await;
    let (one, two) = (stage.node(&[]).await, stage.node(&[]).await);
    let carts: Vec<Cart> = (0..40).map(|_| stage.cart()).collect();
    let placing = carts.iter().enumerate().map(async |(number, cart)| {
        let node = if number % 2 == 0 { &one } else { &two };
        node.place(cart).await
    });
    for answer in join_all(placing).await {
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        assert_eq!(stage.payments.balance(answer.order().order_id), SOLD);
    }
    assert_eq!(stage.dead_letters().await, 0);
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    let cart = stage.cart();
    let first = node.place(&cart).await;

    let mut other = cart.clone();
    other.body["buyer"]["name"] = "Eve".into();
    let answer = node.place(&other).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "key_reused"));

    // Another session's keys are its own.
    let session = SessionId::new();
    let mut stranger = Cart::of(session, stage.inventory.hold(session));
    stranger.key.clone_from(&cart.key);
    assert_eq!(node.place(&stranger).await.status, StatusCode::CREATED);
    assert_eq!(node.place(&cart).await, first);
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_202_and_stays_202() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    stage.payments.set(PaymentAction::Capture, Manner::Mute);
    let cart = stage.cart();

    // Its last tenth is left for the answer, which is no 504.
    let answer = fetch(node.placing(&cart, 5_000)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let order = answer.order();
    assert_eq!(order.state, OrderState::Pending);
    assert_eq!(answer.location, Some(format!("/v1/orders/{}", order.order_id)));
    assert!(order.order_secret.is_some());

    // The result comes at last.
    eventually(PATIENCE, async || stage.payments.received(PaymentAction::Capture) > 0).await;
    let capture = stage.payments.command(PaymentAction::Capture);
    let done = PaymentOutcome::Succeeded { reference: "cap_1".into() };
    stage.payments.publish(&capture, done).await;
    node.reaches(order.order_id, cart.session, OrderState::Confirmed).await;
    assert_eq!(node.place(&cart).await, answer, "the truth is at Location");
    eventually(PATIENCE, async || stage.notify.mails(order.order_id) == [MailKind::Tickets]).await;
}

#[tokio::test]
async fn a_repeat_waits_for_the_first_and_says_in_progress_when_its_own_time_is_over() {
    let stage = Stage::set().await;
    let (node, other) = (stage.node(&[]).await, stage.node(&[]).await);
    stage.payments.set(PaymentAction::Authorise, Manner::Mute);
    let cart = stage.cart();

    let first = node.place(&cart);
    let repeats = async {
        eventually(PATIENCE, async || stage.payments.received(PaymentAction::Authorise) > 0).await;
        let short = other.place_within(&cart, SHORT_MS).await;
        assert_eq!((short.status, short.code().as_str()), (StatusCode::CONFLICT, "key_in_progress"));
        assert_eq!(short.retry_after.as_deref(), Some("1"));

        let long = other.place(&cart);
        let result = async {
            let authorise = stage.payments.command(PaymentAction::Authorise);
            let done = PaymentOutcome::Succeeded { reference: "auth_1".into() };
            stage.payments.publish(&authorise, done).await;
        };
        tokio::join!(long, result).0
    };
    let (first, repeat) = tokio::join!(first, repeats);
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    assert_eq!(repeat, first, "also on another replica");
}

#[tokio::test]
async fn a_dropped_connection_does_not_stop_the_order() {
    let stage = Stage::set().await;
    let node = stage.node(&[("RETRY_AFTER_MS", "300")]).await;
    stage.inventory.set("attach", Manner::Silent);
    let cart = stage.cart();
    let request = tokio::spawn(node.placing(&cart, 10_000).send());
    eventually(PATIENCE, async || stage.inventory.asked("attach") > 0).await;
    request.abort();
    stage.inventory.set("attach", Manner::Good);

    let answer = node.place(&cart).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert_eq!(stage.inventory.keys("attach"), 1);
}

#[tokio::test]
async fn a_repeat_takes_over_when_the_first_ended_without_an_answer() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    stage.payments.set(PaymentAction::Authorise, Manner::Mute);
    let cart = stage.cart();
    // On a busy machine its deadline may pass before the card is asked for.
    let first = async {
        loop {
            let _ended = node.placing(&cart, 1_000).send().await;
        }
    };
    tokio::select! {
        () = first => {}
        () = eventually(PATIENCE, async || stage.payments.received(PaymentAction::Authorise) > 0) => {}
    }
    // The deadline of the first request passes while the repeat waits.
    let answer = node.place_within(&cart, 3_000).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
}

#[tokio::test]
async fn what_cannot_be_an_order_is_refused_and_nothing_is_stored() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    let cart = stage.cart();
    let with = |change: fn(&mut serde_json::Value)| {
        let mut cart = cart.clone();
        change(&mut cart.body);
        cart
    };
    let cases = [
        (with(|body| body["gift"] = true.into()), 400, "malformed_request"),
        (with(|body| body["buyer"]["age"] = 7.into()), 400, "malformed_request"),
        (with(|body| body["hold_id"] = "hld_1".into()), 400, "malformed_request"),
        (with(|body| body["payment"] = serde_json::Value::Null), 400, "malformed_request"),
        (with(|body| body["buyer"]["email"] = "nobody".into()), 422, "validation_failed"),
        (with(|body| body["buyer"]["name"] = "a\r\nBcc: b".into()), 422, "validation_failed"),
        (with(|body| body["payment"]["card_token"] = "".into()), 422, "validation_failed"),
        (Cart { key: "\"\"".into(), ..cart.clone() }, 400, "key_malformed"),
    ];
    for (case, status, code) in cases {
        let answer = node.place(&case).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{case:?}");
    }
    let no_key = node.post("/v1/orders", cart.session).json(&cart.body);
    assert_eq!(fetch(no_key).await.code(), "key_missing");
    let no_json = node.post("/v1/orders", cart.session).header("idempotency-key", "k").body("{}");
    assert_eq!(fetch(no_json).await.code(), "unsupported_media_type");
    let too_large = node.placing(&cart, 1_000).body("x".repeat(70_000));
    assert_eq!(fetch(too_large).await.code(), "too_large");

    let orders: i64 =
        sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(stage.database.pool()).await.unwrap();
    assert_eq!(orders, 0);
    assert_eq!(node.place(&cart).await.status, StatusCode::CREATED, "the key is still free");
}

#[tokio::test]
async fn a_page_has_the_newest_orders_first() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    let session = SessionId::new();
    let mut placed: Vec<OrderId> = Vec::new();
    for _ in 0..3 {
        let cart = Cart::of(session, stage.inventory.hold(session));
        placed.insert(0, node.place(&cart).await.order().order_id);
    }
    let page = |path: String| {
        let request = node.get(&path, session);
        async move {
            let body = fetch(request).await.body;
            let page: stampede_contracts::api::Page<stampede_contracts::api::Order> =
                serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
            let ids: Vec<OrderId> = page.items.iter().map(|order| order.order_id).collect();
            assert!(page.items.iter().all(|order| order.order_secret.is_none()));
            (ids, page.next_cursor)
        }
    };
    let (first, cursor) = page("/v1/orders?limit=2".into()).await;
    assert_eq!(first, placed[..2]);
    let (rest, end) = page(format!("/v1/orders?limit=2&cursor={}", cursor.unwrap())).await;
    assert_eq!((rest.as_slice(), end), (&placed[2..], None));

    for wrong in ["limit=0", "limit=101", "limit=x", "cursor=x", "page=1"] {
        let answer = fetch(node.get(&format!("/v1/orders?{wrong}"), session)).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "invalid_parameter"), "{wrong}");
    }
}

#[tokio::test]
async fn a_key_is_kept_for_its_time_and_forgotten_then() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    let cart = stage.cart();
    let first = node.place(&cart).await;
    assert_eq!(node.place(&cart).await, first);

    let _forgetful = stage.node(&[("KEYS_KEPT_FOR_MS", "1")]).await;
    let keys = || async {
        let keys =
            sqlx::query_scalar::<_, i64>("SELECT count(idempotency_key) + count(reply_body) FROM orders");
        keys.fetch_one(stage.database.pool()).await.unwrap()
    };
    eventually(PATIENCE, async || keys().await == 0).await;
    let second = node.place(&cart).await;
    assert_eq!(second.code(), "hold_gone", "a new order, for a hold that is sold");
    assert_eq!(node.order(first.order().order_id, cart.session).await.state, OrderState::Confirmed);
}
