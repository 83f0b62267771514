//! Outcomes that are not known at first.

use std::time::Duration;

use stampede_contracts::command::PaymentAction::{Authorise, Capture, Refund, Void};
use stampede_contracts::event::PaymentOutcome;
use stampede_contracts::{OrderId, StepId};
use stampede_payments::domain::NOTHING_TO_VOID;
use stampede_payments::store::Wanted;
use stampede_psp_sim::card::Card;
use stampede_psp_sim::domain::Request;
use stampede_psp_sim::knobs::Knobs;
use stampede_service::Secret;
use stampede_testkit::eventually;

use crate::orders::{Held, about, authorise, price, reference, refused};
use crate::support::{PATIENCE, World};

#[tokio::test]
async fn a_lost_reply_is_found_out() {
    let (world, _replica) = World::start().await;
    let command = authorise(world.orders.place(Card::LostReply));
    reference(&world.orders.settle(&command).await);
    assert!(world.attempts(command.step_id).await > Some(1));
    assert_eq!(world.psp_ledger().await, ["authorise authorised"], "and charged once");
    world.check().await;
}

#[tokio::test]
async fn a_provider_that_is_slower_than_our_patience_is_waited_for() {
    let (world, _replica) = World::start().await;
    let command = authorise(world.orders.place(Card::Slow));
    reference(&world.orders.settle(&command).await);
    assert!(world.attempts(command.step_id).await > Some(2), "it took longer than one call may take");
    assert_eq!(world.psp_ledger().await, ["authorise authorised"]);
    world.check().await;
}

#[tokio::test]
async fn a_charge_that_lands_after_not_found_is_found() {
    let (world, _replica) = World::start().await;
    let command = authorise(world.orders.place(Card::Late));
    reference(&world.orders.settle(&command).await);
    assert_eq!(world.psp_ledger().await, ["authorise authorised"]);
    world.check().await;
}

#[tokio::test]
async fn all_goes_well_in_the_end_with_a_provider_on_a_bad_day() {
    let (world, _replica) = World::start().await;
    let knobs = Knobs {
        error_rate: 0.3,
        lost_reply_rate: 0.2,
        latency_jitter_ms: 50,
        webhook_delay_ms: 0,
        webhook_duplicate_rate: 0.5,
        webhook_shuffle_rate: 0.5,
        ..Knobs::default()
    };
    world.set(knobs);
    let purchases: Vec<_> = (0..12).map(|_| authorise(world.orders.place(Card::Works))).collect();
    for action in [Authorise, Capture, Refund] {
        let steps: Vec<_> = purchases
            .iter()
            .map(|first| if action == Authorise { first.clone() } else { about(first, action) })
            .collect();
        for step in &steps {
            world.orders.send(step).await;
        }
        for step in &steps {
            reference(&world.orders.outcome(step.step_id).await);
        }
    }
    world.set(Knobs::default());
    assert_eq!(world.psp_ledger().await.len(), 36, "each once");
    assert_eq!(world.balance("refunds").await, 12 * price().amount());
    world.check().await;
}

#[tokio::test]
async fn an_outage_of_the_provider_is_outlasted_without_using_up_deliveries() {
    let (world, _replica) = World::start().await;
    world.set(Knobs { down: true, ..Knobs::default() });
    let command = authorise(world.orders.place(Card::Works));
    world.orders.send(&command).await;
    // More attempts than the queue would have deliveries.
    eventually(PATIENCE, async || world.attempts(command.step_id).await > Some(6)).await;
    assert_eq!(world.queued().await, 0);
    assert!(world.orders.results().is_empty(), "an unknown outcome is not told");
    world.set(Knobs::default());
    reference(&world.orders.outcome(command.step_id).await);
    world.check().await;
}

#[tokio::test]
async fn while_orders_is_away_the_card_is_asked_for_again() {
    let mut world = World::new().await;
    // An attempt ends before orders would have to answer.
    world.config.work.lease = Duration::from_secs(2);
    let _replica = world.replica("payments-1").await;
    world.orders.hold_back_tokens(Held::Yes);
    let command = authorise(world.orders.place(Card::Works));
    world.orders.send(&command).await;
    eventually(PATIENCE, async || world.attempts(command.step_id).await > Some(1)).await;
    world.orders.hold_back_tokens(Held::No);
    reference(&world.orders.outcome(command.step_id).await);
    world.check().await;
}

#[tokio::test]
async fn a_wrong_api_key_is_an_operators_problem_and_no_outcome() {
    let mut world = World::new().await;
    let right = std::mem::replace(&mut world.config.provider.api_key, Secret::new("wrong"));
    let misconfigured = world.replica("payments-1").await;
    let command = authorise(world.orders.place(Card::Works));
    world.orders.send(&command).await;
    eventually(PATIENCE, async || world.attempts(command.step_id).await > Some(2)).await;
    let error: Vec<String> =
        sqlx::query_scalar("SELECT last_error FROM operation WHERE last_error IS NOT NULL")
            .fetch_all(world.database.pool())
            .await
            .unwrap();
    assert!(error.iter().all(|error| error.contains("API key")), "{error:?}");
    misconfigured.stop().await;

    world.config.provider.api_key = right;
    let _repaired = world.replica("payments-1").await;
    reference(&world.orders.outcome(command.step_id).await);
    world.check().await;
}

#[tokio::test]
async fn a_void_that_overtakes_its_authorise_keeps_it_from_happening() {
    let (world, _replica) = World::start().await;
    let command = authorise(world.orders.place(Card::Works));
    let void = about(&command, Void);
    assert_eq!(reference(&world.orders.settle(&void).await), NOTHING_TO_VOID);
    assert_eq!(world.orders.outcome(command.step_id).await, refused("voided"));
    let told = world.orders.results_of(command.step_id);

    world.orders.send(&command).await;
    eventually(PATIENCE, async || world.orders.results_of(command.step_id) > told).await;
    assert_eq!(
        world.orders.outcome(command.step_id).await,
        refused("voided"),
        "the late one finds the tombstone"
    );
    assert_eq!(world.psp_ledger().await, ["cancel cancelled"]);
    world.check().await;
}

#[tokio::test]
async fn a_void_ends_an_authorisation_in_flight() {
    let mut world = World::new().await;
    // The worker waits for the provider's answer, which never comes, and does not look up what would land then.
    world.attempt_ms = 8_000;
    world.config.work.lease = Duration::from_secs(20);
    let _replica = world.replica("payments-1").await;
    let command = authorise(world.orders.place(Card::Late));
    world.orders.send(&command).await;
    let key = command.step_id.to_string();
    eventually(PATIENCE, async || world.sim.is_in_flight(&key)).await;

    let void = about(&command, Void);
    assert_eq!(reference(&world.orders.settle(&void).await), NOTHING_TO_VOID);
    assert_eq!(world.orders.outcome(command.step_id).await, refused("voided"));
    eventually(PATIENCE, async || !world.sim.is_in_flight(&key)).await;
    assert_eq!(world.psp_status(command.step_id).await.as_deref(), Some("cancelled"), "it did not land");
    world.check().await;
}

#[tokio::test]
async fn an_authorisation_that_was_given_up_is_not_asked_for_even_if_the_void_died() {
    let mut world = World::new().await;
    let (store, _worker) = world.bare_worker().await;
    let command = authorise(world.orders.place(Card::Works));
    let wanted = vec![Wanted { command: about(&command, Void), traceparent: None }];
    let void = store.take(wanted, 1).await.unwrap().leased.remove(0);
    store.give_up(command.step_id, &void).await.unwrap();
    sqlx::query("UPDATE operation SET due_at = now() WHERE action = 'authorise'")
        .execute(world.database.pool())
        .await
        .unwrap();

    let _replica = world.replica("payments-1").await;
    assert_eq!(world.orders.outcome(command.step_id).await, refused("voided"));
    assert_eq!(world.psp_ledger().await, ["cancel cancelled"]);
    world.check().await;
}

#[tokio::test]
async fn a_void_of_an_authorisation_whose_reply_was_lost_voids_what_was_reserved() {
    let mut world = World::new().await;
    let (store, worker) = world.bare_worker().await;
    let command = authorise(OrderId::new());
    let void = about(&command, Void);
    // The provider has reserved the amount, and nobody here knows.
    let wanted = |command| vec![Wanted { command, traceparent: None }];
    store.take(wanted(command.clone()), 0).await.unwrap();
    let request = Request::Authorise {
        card_token: Card::Works.token(),
        amount: price(),
        reference: command.order_id.to_string(),
    };
    world.sim.perform(&command.step_id.to_string(), request).await;

    let mut taken = store.take(wanted(void.clone()), 1).await.unwrap();
    worker.drive(taken.leased.remove(0)).await;
    assert_eq!(world.psp_ledger().await, ["authorise authorised", "void voided"]);
    let outcome = outcome(&world, command.step_id).await;
    assert_eq!(outcome, Some("succeeded".to_owned()), "the authorisation's own outcome is known too");
    assert_eq!(self::outcome(&world, void.step_id).await, Some("succeeded".to_owned()));
    world.check().await;
}

#[tokio::test]
async fn whatever_the_provider_rejects_is_cancelled_before_it_is_refused() {
    let mut world = World::new().await;
    let (store, worker) = world.bare_worker().await;
    // Somebody used the key for something else: the provider answers 422.
    let command = authorise(world.orders.place(Card::Works));
    let other = Request::Capture { authorisation: "auth_unknown".to_owned() };
    world.sim.perform(&command.step_id.to_string(), other).await;
    let wanted = vec![Wanted { command: command.clone(), traceparent: None }];
    let mut taken = store.take(wanted, 1).await.unwrap();
    worker.drive(taken.leased.remove(0)).await;
    assert_eq!(outcome(&world, command.step_id).await.as_deref(), Some("refused"));
    let reason: String =
        sqlx::query_scalar("SELECT reason FROM operation").fetch_one(world.database.pool()).await.unwrap();
    assert_eq!(reason, "unknown_authorisation", "what the provider has under the key");
}

#[tokio::test]
async fn steps_wait_for_the_steps_they_are_about() {
    let (world, _replica) = World::start().await;
    world.set(Knobs { down: true, ..Knobs::default() });
    let first = authorise(world.orders.place(Card::Works));
    let (capture, refund) = (about(&first, Capture), about(&first, Refund));
    for command in [&first, &capture, &refund] {
        world.orders.send(command).await;
        eventually(PATIENCE, async || world.attempts(command.step_id).await.is_some()).await;
    }
    eventually(PATIENCE, async || world.attempts(refund.step_id).await > Some(1)).await;
    world.set(Knobs::default());
    for command in [&first, &capture, &refund] {
        reference(&world.orders.outcome(command.step_id).await);
    }
    world.check().await;
}

#[tokio::test]
async fn many_purchases_at_once_are_worked_on_side_by_side() {
    let (world, _replica) = World::start().await;
    // One after the other they take 20 s, on any machine.
    world.set(Knobs { latency_ms: 200, ..Knobs::default() });
    let commands: Vec<_> = (0..100).map(|_| authorise(world.orders.place(Card::Works))).collect();
    let messages: Vec<_> = commands.iter().map(crate::orders::message).collect();
    let started = tokio::time::Instant::now();
    world.orders.publish(&messages).await;
    for command in &commands {
        let outcome = world.orders.outcome(command.step_id).await;
        assert!(matches!(outcome, PaymentOutcome::Succeeded { .. }), "{outcome:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    world.set(Knobs::default());
    world.check().await;
}

async fn outcome(world: &World, step: StepId) -> Option<String> {
    let outcome = sqlx::query_scalar("SELECT outcome FROM operation WHERE step_id = $1").bind(step.uuid());
    outcome.fetch_one(world.database.pool()).await.unwrap()
}
