//! The inbox against a real Postgres.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::time::Duration;

use sqlx::migrate::Migrator;
use stampede_idempotency::inbox;
use stampede_postgres::PgPool;
use stampede_testkit::{Database, eventually, fresh_database};

/// Long enough for a busy machine; nothing that succeeds waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

async fn database() -> Database {
    let database = fresh_database("inbox", &Migrator::DEFAULT).await;
    sqlx::raw_sql(inbox::SCHEMA).execute(database.pool()).await.unwrap();
    database
}

async fn claim(pool: &PgPool, ids: &[&str]) -> Vec<bool> {
    let mut transaction = pool.begin().await.unwrap();
    let new = inbox::claim(&mut transaction, ids).await.unwrap();
    transaction.commit().await.unwrap();
    new
}

#[tokio::test]
async fn an_event_is_new_once() {
    let database = database().await;
    assert_eq!(claim(&database, &["b", "a"]).await, [true, true]);
    assert_eq!(claim(&database, &["a", "c", "b"]).await, [false, true, false]);
    assert_eq!(claim(&database, &["d", "d", "a", "d"]).await, [true, false, false, false]);
    assert_eq!(claim(&database, &[]).await, [] as [bool; 0]);
}

#[tokio::test]
async fn a_claim_that_is_rolled_back_was_none() {
    let database = database().await;
    let mut transaction = database.begin().await.unwrap();
    assert_eq!(inbox::claim(&mut transaction, &["a"]).await.unwrap(), [true]);
    transaction.rollback().await.unwrap();
    assert_eq!(claim(&database, &["a"]).await, [true]);
}

/// How many connections wait for another one's lock.
async fn waiting(pool: &PgPool) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn who_comes_second_waits_for_the_first_to_end() {
    let database = database().await;
    for first_commits in [true, false] {
        let id = format!("event-{first_commits}");
        let mut first = database.begin().await.unwrap();
        inbox::claim(&mut first, &[&id]).await.unwrap();

        let (pool, same) = (database.pool().clone(), id.clone());
        let second = tokio::spawn(async move { claim(&pool, &[&same]).await });
        eventually(PATIENCE, async || waiting(&database).await == 1).await;
        let ended = if first_commits { first.commit().await } else { first.rollback().await };
        ended.unwrap();
        assert_eq!(second.await.unwrap(), [!first_commits]);
    }
}

#[tokio::test]
async fn batches_in_opposite_order_do_not_wait_for_each_other_for_ever() {
    let database = database().await;
    // Somebody holds the event in the middle, so that both batches stop on their way.
    let mut middle = database.begin().await.unwrap();
    inbox::claim(&mut middle, &["b"]).await.unwrap();
    let batches = [["a", "b", "c"], ["c", "b", "a"]].map(|ids| {
        let pool = database.pool().clone();
        tokio::spawn(async move { claim(&pool, &ids).await.into_iter().filter(|new| *new).count() })
    });
    eventually(PATIENCE, async || waiting(&database).await == 2).await;

    middle.rollback().await.unwrap();
    let [one, two] = batches;
    assert_eq!(one.await.unwrap() + two.await.unwrap(), 3, "each event is new to exactly one");
}

#[tokio::test]
async fn purging_forgets_only_what_is_old() {
    let database = database().await;
    claim(&database, &["old", "older", "young"]).await;
    sqlx::query("UPDATE inbox SET seen_at = now() - interval '2 days' WHERE ce_id LIKE 'old%'")
        .execute(database.pool())
        .await
        .unwrap();
    assert_eq!(inbox::purge(&database, Duration::from_secs(24 * 60 * 60)).await.unwrap(), 2);
    assert_eq!(claim(&database, &["old", "young"]).await, [true, false]);
}
