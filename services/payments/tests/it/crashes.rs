//! Processes that die at the worst moment.

use std::time::Duration;

use stampede_contracts::command::PaymentCommand;
use stampede_postgres::Transaction;
use stampede_psp_sim::card::Card;
use stampede_testkit::eventually;

use crate::orders::{Held, authorise, reference};
use crate::support::{PATIENCE, Replica, World};

/// A replica whose provider has done it, and which cannot write that down.
async fn between_success_and_commit(world: &mut World) -> (Replica, PaymentCommand, Transaction) {
    let replica = world.replica("payments-1").await;
    world.orders.hold_back_tokens(Held::Yes);
    let command = authorise(world.orders.place(Card::Works));
    world.orders.send(&command).await;
    eventually(PATIENCE, async || world.attempts(command.step_id).await.is_some()).await;
    // Whoever wants to write the outcome waits for this transaction.
    let mut lock = world.database.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM operation FOR UPDATE").execute(&mut *lock).await.unwrap();
    world.orders.hold_back_tokens(Held::No);
    eventually(PATIENCE, async || world.psp_status(command.step_id).await.is_some()).await;
    (replica, command, lock)
}

#[tokio::test]
async fn who_dies_before_the_commit_is_replaced_by_another() {
    let mut world = World::new().await;
    world.config.work.lease = Duration::from_secs(600);
    let (replica, command, lock) = between_success_and_commit(&mut world).await;
    replica.kill();
    lock.rollback().await.unwrap();
    let lease_ends = "UPDATE operation SET due_at = now()";
    sqlx::query(lease_ends).execute(world.database.pool()).await.unwrap();
    let _other = world.replica("payments-2").await;
    reference(&world.orders.outcome(command.step_id).await);
    assert_eq!(world.psp_ledger().await, ["authorise authorised"], "once, although two have asked");
    world.check().await;
}

#[tokio::test]
async fn who_comes_back_under_its_name_does_not_wait_for_its_own_lease() {
    let mut world = World::new().await;
    world.config.work.lease = Duration::from_secs(600);
    let (replica, command, lock) = between_success_and_commit(&mut world).await;
    replica.kill();
    lock.rollback().await.unwrap();
    let _again = world.replica("payments-1").await;
    reference(&world.orders.outcome(command.step_id).await);
    world.check().await;
}

#[tokio::test]
async fn what_was_settled_and_not_told_is_told_after_a_restart() {
    let mut world = World::new().await;
    let (store, worker) = world.bare_worker().await;
    let command = authorise(world.orders.place(Card::Works));
    let wanted = vec![stampede_payments::store::Wanted { command: command.clone(), traceparent: None }];
    let mut taken = store.take(wanted, 1).await.unwrap();
    worker.drive(taken.leased.remove(0)).await;
    assert_eq!(world.count("SELECT count(*) FROM outbox").await, 1, "nobody publishes yet");

    let _replica = world.replica("payments-1").await;
    reference(&world.orders.outcome(command.step_id).await);
    eventually(PATIENCE, async || world.count("SELECT count(*) FROM outbox").await == 0).await;
    world.check().await;
}

#[tokio::test]
async fn two_workers_on_one_row_do_no_harm() {
    let mut world = World::new().await;
    let (store, worker) = world.bare_worker().await;
    let command = authorise(world.orders.place(Card::Works));
    let wanted = vec![stampede_payments::store::Wanted { command: command.clone(), traceparent: None }];
    let operation = store.take(wanted, 1).await.unwrap().leased.remove(0);
    tokio::join!(worker.drive(operation.clone()), worker.drive(operation.clone()), worker.drive(operation));
    assert_eq!(world.psp_ledger().await, ["authorise authorised"]);
    assert_eq!(world.count("SELECT count(*) FROM outbox").await, 1, "and told once");
    world.check().await;
}
