//! Purchases through every service: the good way, declined, repeated, cancelled, expired.

use std::process::Stdio;

use stampede::client::{With, new_key};
use stampede_contracts::{
    Code,
    api::{self, OrderState, TicketState},
    inventory::HoldState,
};
use stampede_testkit::eventually;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::stage::{GOOD_CARD, PATIENCE, Stage, free_seats};

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_buys_tickets_and_gets_them_by_mail() {
    let stage = Stage::start(&[]).await;
    let (token, show) = (stage.token().await, stage.show("club").await);
    let before = free_seats(&show);
    let reply = stage.order(&show, &token, GOOD_CARD).await;
    let order: api::Order = reply.json().unwrap();
    assert_eq!((reply.status.as_u16(), order.state, order.tickets.len()), (201, OrderState::Confirmed, 2));
    assert!(reply.trace_id().is_some());
    stage.free_seats_become("club", before - 2).await;

    // The mail with both codes lies where a person can read it, and the timeline says that it went out.
    eventually(PATIENCE, async || stage.mail_with(&order)).await;
    eventually(PATIENCE, async || {
        let now = stage.read(order.order_id, &token).await;
        now.timeline.iter().any(|entry| entry.step == "notify" && entry.state == "done")
    })
    .await;

    // Nobody else sees it; the secret does.
    let stranger = stage.token().await;
    for with in [With::token(&stranger), With { secret: Some("guess"), ..With::default() }] {
        let reply = stage.client.read_order(order.order_id, with).await.unwrap();
        assert!(matches!(reply.status.as_u16(), 401 | 404), "{}", reply.status);
    }
    let secret = order.order_secret.unwrap();
    let with = With { secret: Some(&secret), ..With::default() };
    let read: api::Order = stage.client.read_order(order.order_id, with).await.unwrap().json().unwrap();
    assert_eq!(read.order_secret, None);
    stage.platform.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_that_ends_early_holds_nothing() {
    let stage = Stage::start(&[]).await;
    let before = free_seats(&stage.show("club").await);
    let buy = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stampede"));
        // A slash at the end, and a proxy that is not for us.
        let url = format!("{}/", stage.platform.gateway_url);
        command.args(["buy", "--show", "club-night", "--url", &url]).args(args);
        command.env("http_proxy", "http://127.0.0.1:9").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
    };

    // `| head -1`: the purchase goes on to its end, without a panic.
    let mut piped = buy(&[]);
    let mut lines = BufReader::new(piped.stdout.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().unwrap().contains("show"));
    drop(lines);
    let output = piped.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr)), (Some(0), "".into()));
    stage.free_seats_become("club", before - 2).await;

    let declined = buy(&["--card", "4000000000000002"]).wait_with_output().await.unwrap();
    assert_eq!(declined.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&declined.stdout).contains("  hold      released"), "{declined:?}");

    // The terminal goes away while the provider, which takes connections and no requests, is asked for a token.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut hung_up = buy(&["--tokens-url", &format!("http://{}", silent.local_addr().unwrap())]);
    let mut lines = BufReader::new(hung_up.stdout.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().unwrap().contains("  hold ") {}
    let pid = hung_up.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().await.unwrap().success());
    assert!(lines.next_line().await.unwrap().unwrap().contains("  hold      released"));
    assert_eq!(hung_up.wait().await.unwrap().code(), Some(1));
    stage.free_seats_become("club", before - 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_card_gives_the_seats_back_and_another_card_buys_them() {
    let stage = Stage::start(&[]).await;
    let (token, show) = (stage.token().await, stage.show("club").await);
    let hold: api::Hold = stage.hold(&show, &token, 2).await.json().unwrap();
    let declined = stage.new_order(&hold, "4000000000000002").await;
    let (first, second) = (new_key(), new_key());
    let reply = stage.client.order(&declined, With::token(&token).key(&first)).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.code()), (402, Some(Code::PaymentDeclined)));
    let held: api::Hold = stage.client.read_hold(hold.hold_id, &token).await.unwrap().json().unwrap();
    assert_eq!(held.state, HoldState::Held);
    let order = stage.new_order(&hold, GOOD_CARD).await;
    let reply = stage.client.order(&order, With::token(&token).key(&second)).await.unwrap();
    assert_eq!(reply.status.as_u16(), 201);
    // The first key still says what it said.
    let again = stage.client.order(&declined, With::token(&token).key(&first)).await.unwrap();
    assert_eq!(again.status.as_u16(), 402);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_has_one_effect_and_one_reply() {
    let stage = Stage::start(&[]).await;
    let (token, show) = (stage.token().await, stage.show("club").await);
    let hold: api::Hold = stage.hold(&show, &token, 2).await.json().unwrap();
    let order = stage.new_order(&hold, GOOD_CARD).await;
    let key = new_key();
    let with = With::token(&token).key(&key);
    let (first, second) = tokio::join!(stage.client.order(&order, with), stage.client.order(&order, with));
    let (first, second) = (first.unwrap(), second.unwrap());
    let third = stage.client.order(&order, with).await.unwrap();
    assert_eq!(first.status.as_u16(), 201);
    for other in [&second, &third] {
        assert_eq!((other.status, &other.body), (first.status, &first.body));
    }
    let mine: api::Page<api::Order> = stage
        .client
        .send(reqwest::Method::GET, "/v1/orders", With::token(&token), None)
        .await
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(mine.items.len(), 1);

    let mut other = order.clone();
    other.buyer.name = "Somebody Else".into();
    let reply = stage.client.order(&other, with).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.code()), (422, Some(Code::KeyReused)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_order_frees_its_seats_and_revokes_its_tickets() {
    let stage = Stage::start(&[]).await;
    let (token, show) = (stage.token().await, stage.show("club").await);
    let before = free_seats(&show);
    let order: api::Order = stage.order(&show, &token, GOOD_CARD).await.json().unwrap();
    for _ in 0..2 {
        let reply = stage.client.cancel(order.order_id, With::token(&token)).await.unwrap();
        assert!(reply.status.is_success(), "{}", reply.status);
    }
    stage.becomes(order.order_id, &token, OrderState::Cancelled).await;
    let now = stage.read(order.order_id, &token).await;
    assert!(now.tickets.iter().all(|ticket| ticket.state == TicketState::Revoked));
    assert!(
        now.timeline.iter().any(|entry| entry.step == "refund" && entry.state == "done"),
        "{:?}",
        now.timeline
    );
    stage.free_seats_become("club", before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_expired_buys_nothing() {
    let stage = Stage::start(&["inventory.HOLD_SECONDS=1"]).await;
    let (token, show) = (stage.token().await, stage.show("club").await);
    let before = free_seats(&show);
    let hold: api::Hold = stage.hold(&show, &token, 2).await.json().unwrap();
    let order = stage.new_order(&hold, GOOD_CARD).await;
    eventually(PATIENCE, async || {
        let held: api::Hold = stage.client.read_hold(hold.hold_id, &token).await.unwrap().json().unwrap();
        held.state == HoldState::Freed
    })
    .await;
    stage.free_seats_become("club", before).await;
    let key = new_key();
    let reply = stage.client.order(&order, With::token(&token).key(&key)).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.code()), (409, Some(Code::HoldGone)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_show_with_a_lobby_asks_for_a_pass_and_its_holder_buys() {
    let stage = Stage::start(&[]).await;
    let shows = stage.client.shows().await.unwrap();
    let slug = shows.iter().find(|show| show.lobby).map(|show| show.slug.clone()).unwrap();
    let (token, show) = (stage.token().await, stage.show(&slug).await);
    let (key, wish) = (new_key(), crate::stage::best(&show, 1));
    let reply = stage.client.hold(show.summary.show_id, &wish, With::token(&token).key(&key)).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.code()), (403, Some(Code::PassRequired)));
    // Another session's pass is none.
    let pass = stage.pass(&show, &token).await;
    let stranger = stage.token().await;
    let with = With::token(&stranger).key(&key).pass(pass.as_deref());
    let reply = stage.client.hold(show.summary.show_id, &wish, with).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.code()), (403, Some(Code::PassInvalid)));
    let reply = stage.order(&show, &token, GOOD_CARD).await;
    assert_eq!(reply.status.as_u16(), 201);
}
