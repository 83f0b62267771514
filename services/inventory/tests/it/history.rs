//! What is forgotten of shows that are over, and what is not.

use std::time::Duration;

use stampede_contracts::event::ShowPublished;
use stampede_inventory::store::Store;
use stampede_outbox::Outbox;
use stampede_testkit::eventually;

use crate::world::{PATIENCE, World, best, code, of_order, rows};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const KEEP: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// A show that starts so long from now, of which two seats were sold and one was given back: five changes, two holds.
async fn sold(world: &World, starts_in: Duration) -> ShowPublished {
    let starts_at = world.now() + starts_in;
    let show = ShowPublished { starts_at, cancel_until: starts_at, ..world.show(&[rows(&[6])]) };
    world.open(&show).await;
    let hold = world.hold(&best(&show, 2)).await.unwrap();
    let attach = world.attach_of(&hold);
    world.attach(&attach).await.unwrap();
    world.confirm(&of_order(&attach)).await.unwrap();
    let given_back = world.hold(&best(&show, 1)).await.unwrap();
    world.release(&given_back).await.unwrap();
    show
}

async fn history(world: &World, show: &ShowPublished) -> String {
    let query = sqlx::query_scalar("SELECT history FROM show WHERE id = $1").bind(show.show_id.uuid());
    query.fetch_one(world.pool()).await.unwrap()
}

#[tokio::test]
async fn a_show_that_is_over_is_forgotten_some_rows_at_a_time_and_no_other() {
    let (world, replica) = World::with_replica().await;
    let store = replica.inventory.store();
    let over = sold(&world, DAY).await;
    let later = sold(&world, DAY * 2).await;
    let (held, _) = world.open_section(rows(&[6])).await;
    let hold = world.hold(&best(&held, 1)).await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM journal").await, 11);

    assert_eq!(
        store.forget_history(over.starts_at + KEEP, KEEP, 3).await.unwrap(),
        0,
        "it is over only then"
    );
    let now = later.starts_at + KEEP;
    assert_eq!(store.forget_history(now, KEEP, 3).await.unwrap(), 3);
    assert_eq!(history(&world, &over).await, "going");
    let mut rounds = 1;
    while store.forget_history(now, KEEP, 3).await.unwrap() > 0 {
        rounds += 1;
    }
    assert_eq!(rounds, 3, "three rows, two rows, the mark");
    assert_eq!((history(&world, &over).await, history(&world, &later).await), ("gone".into(), "kept".into()));
    assert_eq!(history(&world, &held).await, "kept", "somebody still holds a seat of it");
    assert_eq!(world.count("SELECT count(*) FROM journal").await, 6);
    assert_eq!(world.count("SELECT count(*) FROM hold").await, 3);
    assert_eq!(
        world.count("SELECT count(*) FROM block WHERE sold = 2").await,
        2,
        "blocks say how it was sold"
    );

    world.release(&hold).await.unwrap();
    while store.forget_history(now, KEEP, 100).await.unwrap() > 0 {}
    assert_eq!(history(&world, &held).await, "gone");
    assert_eq!(code(world.get(&hold).await), "hold_not_found");
}

#[tokio::test]
async fn a_show_that_is_moved_while_it_is_found_to_be_over_is_not_forgotten() {
    let (world, _replica) = World::with_replica().await;
    let show = sold(&world, DAY).await;
    let mut moving = world.pool().begin().await.unwrap();
    let later = "UPDATE show SET starts_at = starts_at + interval '9 days' WHERE id = $1";
    sqlx::query(later).bind(show.show_id.uuid()).execute(&mut *moving).await.unwrap();
    // On a pool that waits for locks as long as it takes.
    let pool = world.pool().clone();
    let (store, now) = (Store::new(pool.clone(), Outbox::new(pool, 1)), show.starts_at + KEEP * 2);
    let forget = tokio::spawn(async move { store.forget_history(now, KEEP, 3).await.unwrap() });
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually(PATIENCE, async || world.count(waiting).await == 1).await;
    moving.commit().await.unwrap();
    assert_eq!((forget.await.unwrap(), history(&world, &show).await), (0, "kept".into()));
}

#[tokio::test]
async fn the_sweeper_forgets_after_the_days_it_is_told() {
    let mut world = World::new().await;
    world.set("HISTORY_KEPT_FOR_DAYS", "2");
    let replica = world.replica().await;
    sold(&world, DAY).await;
    let later = sold(&world, DAY * 9).await;
    replica.end().await;
    world.advance(DAY * 4);
    let _replica = world.replica().await;
    eventually(PATIENCE, async || world.count("SELECT count(*) FROM show WHERE history = 'gone'").await == 1)
        .await;
    assert_eq!(world.count("SELECT count(*) FROM journal").await, 5);
    assert_eq!(history(&world, &later).await, "kept");
}
