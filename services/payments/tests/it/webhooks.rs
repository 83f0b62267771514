//! The provider's webhooks: they wake, and that is all.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::json;
use stampede_contracts::{StepId, Timestamp};
use stampede_psp_sim::card::Card;
use stampede_psp_sim::knobs::Knobs;
use stampede_psp_sim::webhooks::sign;
use stampede_testkit::eventually;

use crate::orders::{Held, authorise, reference};
use crate::support::{PATIENCE, WEBHOOK_SECRET, World};

fn body(step: StepId) -> String {
    json!({ "event_id": "evt_1", "type": "authorisation.succeeded", "key": step, "id": "auth_made_up" })
        .to_string()
}

fn now() -> i64 {
    Timestamp::now().unix_millis() / 1_000
}

async fn post(world: &World, id: &str, timestamp: i64, signature: &str, body: String) -> StatusCode {
    let request = Client::new().post(&world.webhook_url).header("webhook-id", id);
    let request = request.header("webhook-timestamp", timestamp).header("webhook-signature", signature);
    request.body(body).send().await.unwrap().status()
}

/// A webhook as the provider would send it.
async fn genuine(world: &World, id: &str, body: String) -> StatusCode {
    let signature = sign(WEBHOOK_SECRET, id, now(), &body);
    post(world, id, now(), &signature, body).await
}

#[tokio::test]
async fn a_webhook_ends_the_wait_for_an_outcome() {
    let mut world = World::new().await;
    // Without a webhook the next attempt would come in a minute, more or less.
    world.config.work.retry_min = Duration::from_secs(60);
    world.config.work.retry_max = Duration::from_secs(60);
    // Long after the attempt whose reply is lost has put its row off.
    world.set(Knobs { webhook_delay_ms: 3_000, webhook_duplicate_rate: 1.0, ..Knobs::default() });
    let _replica = world.replica("payments-1").await;
    let command = authorise(world.orders.place(Card::LostReply));
    reference(&world.orders.settle(&command).await);
    assert_eq!(world.count("SELECT count(*) FROM webhook").await, 1, "it was sent twice, and woke once");
    assert_eq!(world.orders.results_of(command.step_id), 1);
    world.check().await;
}

#[tokio::test]
async fn a_webhook_decides_nothing() {
    let (world, _replica) = World::start().await;
    world.orders.hold_back_tokens(Held::Yes);
    let command = authorise(world.orders.place(Card::Works));
    world.orders.send(&command).await;
    eventually(PATIENCE, async || world.attempts(command.step_id).await.is_some()).await;

    assert_eq!(genuine(&world, "evt_1", body(command.step_id)).await, StatusCode::NO_CONTENT);
    assert_eq!(genuine(&world, "evt_1", body(command.step_id)).await, StatusCode::NO_CONTENT);
    assert_eq!(world.count("SELECT count(*) FROM webhook").await, 1, "the second is the same one");
    eventually(PATIENCE, async || world.attempts(command.step_id).await > Some(1)).await;
    assert!(
        world.orders.results().is_empty(),
        "it says that the authorisation succeeded, the provider does not"
    );

    world.orders.hold_back_tokens(Held::No);
    assert_ne!(reference(&world.orders.outcome(command.step_id).await), "auth_made_up");
    world.check().await;
}

#[tokio::test]
async fn a_webhook_about_what_is_settled_or_unknown_leaves_no_trace() {
    let (world, _replica) = World::start().await;
    let command = authorise(world.orders.place(Card::Works));
    world.orders.settle(&command).await;
    assert_eq!(genuine(&world, "evt_1", body(command.step_id)).await, StatusCode::NO_CONTENT);
    assert_eq!(genuine(&world, "evt_2", body(StepId::new())).await, StatusCode::NO_CONTENT);
    let foreign = json!({ "key": "somebody else's" }).to_string();
    assert_eq!(genuine(&world, "evt_3", foreign).await, StatusCode::NO_CONTENT);
    assert_eq!(world.count("SELECT count(*) FROM webhook").await, 0);
    world.check().await;
}

#[tokio::test]
async fn forged_old_and_unreadable_webhooks_are_refused() {
    let (world, _replica) = World::start().await;
    world.orders.hold_back_tokens(Held::Yes);
    let command = authorise(world.orders.place(Card::Works));
    world.orders.send(&command).await;
    eventually(PATIENCE, async || world.attempts(command.step_id).await.is_some()).await;
    let body = body(command.step_id);

    let forged = sign("guess", "evt_1", now(), &body);
    assert_eq!(post(&world, "evt_1", now(), &forged, body.clone()).await, StatusCode::UNAUTHORIZED);
    let of_another = sign(WEBHOOK_SECRET, "evt_2", now(), &body);
    assert_eq!(post(&world, "evt_1", now(), &of_another, body.clone()).await, StatusCode::UNAUTHORIZED);
    let old = now() - 301;
    let signature = sign(WEBHOOK_SECRET, "evt_1", old, &body);
    assert_eq!(post(&world, "evt_1", old, &signature, body.clone()).await, StatusCode::UNAUTHORIZED);
    assert_eq!(
        Client::new().post(&world.webhook_url).send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(genuine(&world, "evt_1", "{".to_owned()).await, StatusCode::BAD_REQUEST);
    assert_eq!(genuine(&world, "evt_1", "x".repeat(17 * 1024)).await, StatusCode::PAYLOAD_TOO_LARGE);

    assert_eq!(world.count("SELECT count(*) FROM webhook").await, 0);
    world.orders.hold_back_tokens(Held::No);
    reference(&world.orders.outcome(command.step_id).await);
    world.check().await;
}
