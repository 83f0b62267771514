//! Holds end by themselves.

use stampede_contracts::Code;
use stampede_contracts::inventory::{ATTACHED_GRACE, HoldState, HoldView, PlaceHold};
use stampede_testkit::{Proxy, eventually};

use crate::world::{MINUTE, PATIENCE, World, best, code, of_order, rows};

async fn is_swept(world: &World, hold: &HoldView) {
    let id = hold.hold_id.uuid();
    let state = async || {
        let query = sqlx::query_scalar("SELECT state FROM hold WHERE id = $1").bind(id);
        query.fetch_one(world.pool()).await.unwrap()
    };
    eventually(PATIENCE, async || {
        let state: String = state().await;
        state == "freed"
    })
    .await;
}

#[tokio::test]
async fn a_held_hold_ends_with_its_time() {
    let (mut world, replica) = World::with_replica().await;
    replica.end().await;
    world.set("HOLD_SECONDS", "60");
    let _replica = world.replica().await;
    let (show, _) = world.open_section(rows(&[10])).await;
    let holds = [world.hold(&best(&show, 2)).await.unwrap(), world.hold(&best(&show, 3)).await.unwrap()];
    world.advance(MINUTE / 2);
    assert_eq!(world.get(&holds[0]).await.unwrap(), holds[0]);
    world.advance(MINUTE / 2);
    for hold in &holds {
        assert_eq!(world.get(hold).await.unwrap().state, HoldState::Freed, "at once, swept or not");
        assert_eq!(code(world.attach(&world.attach_of(hold)).await), "hold_gone");
        is_swept(&world, hold).await;
    }
    assert_eq!(world.count("SELECT free::bigint FROM block").await, 10);
    assert_eq!(world.release(&holds[0]).await.unwrap().state, HoldState::Freed);
    world.check().await;
}

#[tokio::test]
async fn an_attached_hold_ends_five_minutes_after_the_order_had_to_be_decided() {
    let (world, _replica) = World::with_replica().await;
    let (show, _) = world.open_section(rows(&[10])).await;
    let hold = world.hold(&best(&show, 2)).await.unwrap();
    let attach = world.attach_of(&hold);
    world.attach(&attach).await.unwrap();
    world.advance(MINUTE * 15 + ATTACHED_GRACE - MINUTE);
    // A hold whose time is over shows that the sweeper was here.
    let other = world.hold(&best(&show, 1)).await.unwrap();
    sqlx::query("UPDATE hold SET expires_at = now() - interval '1 hour' WHERE id = $1")
        .bind(other.hold_id.uuid())
        .execute(world.pool())
        .await
        .unwrap();
    is_swept(&world, &other).await;
    assert_eq!(world.get(&hold).await.unwrap().state, HoldState::Attached);

    world.advance(MINUTE);
    is_swept(&world, &hold).await;
    assert_eq!(code(world.confirm(&of_order(&attach)).await), "hold_gone", "before any money moves");
    assert_eq!(world.free(&of_order(&attach)).await.unwrap().state, HoldState::Freed);
    world.check().await;
}

#[tokio::test]
async fn whoever_comes_back_after_the_time_is_not_held_up_by_the_old_hold() {
    let (world, replica) = World::with_replica().await;
    let (show, _) = world.open_section(rows(&[10])).await;
    let hold = world.hold(&best(&show, 2)).await.unwrap();
    world.advance(MINUTE * 5);
    // Whether or not the sweeper was faster.
    let again = PlaceHold { session: hold.session, ..best(&show, 2) };
    assert!(world.hold(&again).await.is_ok());
    replica.end().await;
    world.check().await;
}

#[tokio::test]
async fn many_holds_of_many_blocks_end_and_a_new_leader_takes_over() {
    let (world, first) = World::with_replica().await;
    let second = world.replica().await;
    let (show, _) = world.open_section(rows(&[900, 900, 900])).await;
    for _ in 0..30 {
        world.hold(&best(&show, 8)).await.unwrap();
    }
    first.end().await;
    world.advance(MINUTE * 5);
    eventually(PATIENCE, async || world.count("SELECT sum(held) FROM block").await == 0).await;
    world.check().await;
    second.end().await;
}

#[tokio::test]
async fn a_block_that_contradicts_itself_does_not_hold_back_those_behind_it() {
    let (world, _replica) = World::with_replica().await;
    let ((bad, _), (good, _)) =
        (world.open_section(rows(&[10])).await, world.open_section(rows(&[10])).await);
    let first = world.hold(&best(&bad, 2)).await.unwrap();
    let behind = world.hold(&best(&good, 2)).await.unwrap();
    sqlx::query("UPDATE block SET held = 0, free = 10, seats = repeat('f', 10) WHERE id = $1")
        .bind(first.hold_id.block().number())
        .execute(world.pool())
        .await
        .unwrap();
    world.advance(MINUTE * 60);
    is_swept(&world, &behind).await;
    let state: String = sqlx::query_scalar("SELECT state FROM hold WHERE id = $1")
        .bind(first.hold_id.uuid())
        .fetch_one(world.pool())
        .await
        .unwrap();
    assert_eq!(state, "held", "it is left for a person");
}

#[tokio::test]
async fn a_hold_ends_by_the_clock_of_the_database() {
    let world = World::new().await;
    let an_hour_ahead = "
        CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
            $$SELECT pg_catalog.clock_timestamp() + interval '1 hour'$$;
        DO $$ BEGIN
            EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database());
        END $$";
    sqlx::raw_sql(an_hour_ahead).execute(world.pool()).await.unwrap();
    let _replica = world.replica_by(None).await;
    let (show, _) = world.open_section(rows(&[10])).await;
    let hold = world.hold(&best(&show, 2)).await.unwrap();
    assert!(hold.expires_at.since(world.now()) > MINUTE * 60, "{}", hold.expires_at);
}

#[tokio::test]
async fn while_the_database_takes_no_writes_or_vanished_a_hold_is_refused_in_time_and_then_granted() {
    let mut world = World::new().await;
    let proxy = Proxy::start(&world.database.url()).await;
    world.set("DATABASE_URL", &proxy.url(&world.database.url()));
    world.set("DATABASE_STATEMENT_TIMEOUT_MS", "200");
    let _replica = world.replica().await;
    let (show, _) = world.open_section(rows(&[10])).await;
    let granted = async || {
        let request = best(&show, 1);
        eventually(PATIENCE, async || world.hold(&request).await.is_ok()).await;
    };
    granted().await;

    world.database.set_read_only("on").await;
    // The first may still find its session ended.
    let refused =
        async || world.hold(&best(&show, 1)).await.is_err_and(|problem| problem.code == Code::Unavailable);
    eventually(PATIENCE, &refused).await;
    assert!(refused().await);
    world.database.set_read_only("off").await;
    granted().await;

    proxy.lose();
    granted().await;
}
