//! Taking commands.

use std::time::Duration;

use stampede_contracts::Money;
use stampede_contracts::command::PaymentAction::Capture;
use stampede_contracts::topology::DLQ;
use stampede_psp_sim::card::Card;
use stampede_testkit::eventually;

use crate::orders::{Held, about, authorise, message, reference};
use crate::support::{PATIENCE, World};

async fn dead_letters(world: &World) -> u64 {
    world.operator.jetstream().get_stream(DLQ).await.unwrap().cached_info().state.messages
}

#[tokio::test]
async fn a_command_that_comes_again_is_done_once() {
    let (world, _replica) = World::start().await;
    world.orders.hold_back_tokens(Held::Yes);
    let command = authorise(world.orders.place(Card::Works));
    let copies: Vec<_> = (0..5).map(|attempt| message(&command).attempt(attempt)).collect();
    world.orders.publish(&copies).await;
    eventually(PATIENCE, async || world.queued().await == 0).await;
    world.orders.hold_back_tokens(Held::No);
    reference(&world.orders.outcome(command.step_id).await);
    assert_eq!(world.psp_ledger().await, ["authorise authorised"]);
    assert_eq!(
        world.orders.results_of(command.step_id),
        1,
        "work went on, and nothing was told before its end"
    );
    world.check().await;
}

#[tokio::test]
async fn the_outcome_of_a_command_that_comes_again_is_told_again() {
    let (world, _replica) = World::start().await;
    let command = authorise(world.orders.place(Card::Works));
    world.orders.settle(&command).await;
    world.orders.publish(&[message(&command).attempt(1)]).await;
    eventually(PATIENCE, async || world.orders.results_of(command.step_id) == 2).await;
    let results = world.orders.results();
    assert_eq!(results[0], results[1], "with the same id, so that it is known");
    assert_eq!(world.psp_ledger().await, ["authorise authorised"]);
    world.check().await;
}

#[tokio::test]
async fn what_can_never_be_handled_is_laid_aside_and_the_rest_is_not_held_up() {
    let (world, _replica) = World::start().await;
    let fine = authorise(world.orders.place(Card::Works));
    let mut garbled = message(&authorise(world.orders.place(Card::Works)));
    garbled.payload = b"{}".to_vec();
    let mut about_nothing = about(&fine, Capture);
    about_nothing.authorisation = None;
    world.orders.publish(&[garbled, message(&about_nothing), message(&fine)]).await;
    reference(&world.orders.outcome(fine.step_id).await);
    eventually(PATIENCE, async || dead_letters(&world).await == 2).await;
    assert_eq!(world.count("SELECT count(*) FROM operation").await, 1);
    world.check().await;
}

#[tokio::test]
async fn a_step_that_comes_with_another_content_is_laid_aside() {
    let (world, _replica) = World::start().await;
    let command = authorise(world.orders.place(Card::Works));
    world.orders.settle(&command).await;
    let mut other = command.clone();
    other.amount = Money::try_new(1, "EUR".parse().unwrap()).unwrap();
    world.orders.publish(&[message(&other).attempt(1)]).await;
    eventually(PATIENCE, async || dead_letters(&world).await == 1).await;
    assert_eq!(world.orders.results_of(command.step_id), 1);
    world.check().await;
}

#[tokio::test]
async fn more_commands_than_the_queue_holds_wait_in_the_table() {
    let mut world = World::new().await;
    world.config.work.queue_max = 2;
    world.config.work.workers = 2;
    let _replica = world.replica("payments-1").await;
    let commands: Vec<_> = (0..50).map(|_| authorise(world.orders.place(Card::Works))).collect();
    let messages: Vec<_> = commands.iter().map(message).collect();
    world.orders.publish(&messages).await;
    for command in &commands {
        reference(&world.orders.outcome(command.step_id).await);
    }
    world.check().await;
}

#[tokio::test]
async fn two_replicas_share_the_work_and_do_everything_once() {
    let mut world = World::new().await;
    let _first = world.replica("payments-1").await;
    let _second = world.replica("payments-2").await;
    let commands: Vec<_> = (0..80).map(|_| authorise(world.orders.place(Card::Works))).collect();
    let messages: Vec<_> = commands.iter().map(message).collect();
    world.orders.publish(&messages).await;
    for command in &commands {
        reference(&world.orders.outcome(command.step_id).await);
    }
    assert_eq!(world.psp_ledger().await.len(), 80);
    let mut ids: Vec<_> = world.orders.results().into_iter().map(|(id, _)| id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 80);
    world.check().await;
}

#[tokio::test]
async fn a_replica_that_stops_gives_back_what_it_did_not_begin() {
    let mut world = World::new().await;
    world.config.work.workers = 1;
    world.config.work.lease = Duration::from_secs(60);
    let replica = world.replica("payments-1").await;
    world.orders.hold_back_tokens(Held::Yes);
    let commands: Vec<_> = (0..10).map(|_| authorise(world.orders.place(Card::Works))).collect();
    let messages: Vec<_> = commands.iter().map(message).collect();
    world.orders.publish(&messages).await;
    eventually(PATIENCE, async || world.count("SELECT count(*) FROM operation").await == 10).await;
    let (stopped, ()) = tokio::join!(replica.stop(), async { world.orders.hold_back_tokens(Held::No) });
    let () = stopped;
    assert_eq!(
        world.count("SELECT count(*) FROM operation WHERE outcome IS NULL AND leased_by IS NOT NULL").await,
        0,
        "nobody has to wait for a lease"
    );
    let _other = world.replica("payments-2").await;
    for command in &commands {
        reference(&world.orders.outcome(command.step_id).await);
    }
    world.check().await;
}

#[tokio::test]
async fn a_replica_that_stops_while_it_leases_gives_that_back_too() {
    let mut world = World::new().await;
    world.config.work.lease = Duration::from_secs(600);
    let replica = world.replica("payments-1").await;
    let command = authorise(world.orders.place(Card::Works));
    // The command is being taken, and the place for it in the queue is kept, until this transaction ends.
    let mut lock = world.database.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE operation IN SHARE MODE").execute(&mut *lock).await.unwrap();
    world.orders.send(&command).await;
    let taking = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO operation%'";
    eventually(PATIENCE, async || world.count(taking).await == 1).await;
    tokio::join!(replica.stop(), async {
        assert_eq!(
            world.count(taking).await,
            1,
            "the others of its parts have ended by now, or wait for this one"
        );
        lock.rollback().await.unwrap();
    });
    assert_eq!(world.count("SELECT count(*) FROM operation WHERE leased_by IS NOT NULL").await, 0);
    let _other = world.replica("payments-2").await;
    reference(&world.orders.outcome(command.step_id).await);
    world.check().await;
}
