//! Who may see an order, and how it is followed.

use futures::StreamExt;
use reqwest::{Response, StatusCode};
use stampede_contracts::api::{self, OrderState};
use stampede_contracts::command::PaymentAction;
use stampede_contracts::event::PaymentOutcome;
use stampede_contracts::{OrderId, SessionId, TicketId};
use stampede_testkit::eventually;

use crate::client::{SHORT_MS, fetch};
use crate::players::Manner;
use crate::stage::{PATIENCE, Stage};

#[tokio::test]
async fn strangers_find_nothing_and_the_secret_opens_everything() {
    let stage = Stage::set().await;
    let node = stage.node(&[]).await;
    let cart = stage.cart();
    let order = node.place(&cart).await.order();
    let (id, secret) = (order.order_id, order.order_secret.unwrap());
    let ticket = order.tickets[0].ticket_id;
    let stranger = SessionId::new();

    for path in [format!("/v1/orders/{id}"), format!("/v1/orders/{id}/events")] {
        let answer = fetch(node.get(&path, stranger)).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "order_not_found"));
        let answer = fetch(node.get(&path, stranger).header("order-secret", "00".repeat(32))).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(fetch(node.anonymous(&path)).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(fetch(node.get(&path, cart.session)).await.status, StatusCode::OK);
        assert_eq!(fetch(node.anonymous(&path).header("order-secret", &secret)).await.status, StatusCode::OK);
    }
    let path = format!("/v1/tickets/{ticket}");
    let answer = fetch(node.get(&path, stranger)).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "ticket_not_found"));
    let shown = fetch(node.anonymous(&path).header("order-secret", &secret)).await;
    assert_eq!(serde_json::from_str::<api::Ticket>(&shown.body).unwrap(), order.tickets[0]);

    let answer = node.cancel(id, stranger).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "order_not_found"));
    assert_eq!(node.order(id, cart.session).await.state, OrderState::Confirmed);
    assert_eq!(node.order(id, cart.session).await.order_secret, None, "only the first answer has it");

    let unknown = format!("/v1/orders/{}", OrderId::new());
    assert_eq!(fetch(node.get(&unknown, cart.session)).await.status, StatusCode::NOT_FOUND);
    let unknown = format!("/v1/tickets/{}", TicketId::new());
    assert_eq!(fetch(node.get(&unknown, cart.session)).await.status, StatusCode::NOT_FOUND);
    assert_eq!(fetch(node.get("/v1/orders/ord_1", cart.session)).await.code(), "invalid_parameter");

    let cancelling = node.post(&format!("/v1/orders/{id}/cancel"), stranger).header("order-secret", secret);
    assert_eq!(fetch(cancelling).await.order().state, OrderState::Cancelled);
}

/// Reads a stream of events to its end.
async fn events(response: Response) -> Vec<api::Order> {
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[tokio::test]
async fn an_order_is_followed_on_any_replica_until_it_is_settled() {
    let stage = Stage::set().await;
    let (node, other) = (stage.node(&[]).await, stage.node(&[]).await);
    stage.payments.set(PaymentAction::Capture, Manner::Mute);
    let cart = stage.cart();
    let order = node.place_within(&cart, SHORT_MS).await.order().order_id;
    eventually(PATIENCE, async || stage.payments.received(PaymentAction::Capture) > 0).await;

    let path = format!("/v1/orders/{order}/events");
    let follow = async |node: &crate::client::Node| {
        let response = node.get(&path, cart.session).send().await.unwrap();
        tokio::time::timeout(PATIENCE, events(response)).await.unwrap()
    };
    let result = async {
        let capture = stage.payments.command(PaymentAction::Capture);
        let done = PaymentOutcome::Succeeded { reference: "cap_1".into() };
        stage.payments.publish(&capture, done).await;
    };
    let (here, there, ()) = tokio::join!(follow(&node), follow(&other), result);
    for seen in [here, there] {
        assert!(!seen.is_empty());
        assert_eq!(seen.last().unwrap().state, OrderState::Confirmed);
        assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "only changes are told");
        assert!(seen.iter().all(|order| order.order_secret.is_none()));
    }
}
