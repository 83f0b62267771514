//! The pool and the schema.

use std::time::{Duration, Instant};

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use stampede_service::{Command, Env, Error, Node};
use stampede_testkit::{Database, fresh_database};
use tokio::time::timeout;

use crate::{PATIENCE, node};

fn migrator(statements: &[&'static str]) -> Migrator {
    let numbered = (1..).zip(statements);
    let migration = |(version, sql): (i64, &&'static str)| {
        Migration::new(version, "test".into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(numbered.map(migration).collect())
}

fn two_tables() -> Migrator {
    migrator(&["CREATE TABLE one (id bigint)", "CREATE TABLE two (id bigint)"])
}

async fn empty() -> Database {
    fresh_database("service", &migrator(&[])).await
}

fn production(database: &Database) -> Node {
    node(&[("DATABASE_URL", &database.url()), ("ENVIRONMENT", "production"), ("STARTUP_TIMEOUT_MS", "3000")])
}

#[tokio::test]
async fn on_a_laptop_the_schema_is_made_on_the_way() {
    let database = empty().await;
    let node = node(&[("DATABASE_URL", &database.url())]);
    let pool = node.database(&two_tables()).await.unwrap();
    sqlx::query("SELECT id FROM one, two").fetch_all(&pool).await.unwrap_err();
    sqlx::query("SELECT one.id FROM one, two").fetch_all(&pool).await.unwrap();
    assert!(node.readiness().report().await.conditions.iter().all(|condition| condition.ready));
}

#[tokio::test]
async fn in_production_only_migrate_changes_it() {
    let database = empty().await;
    let serving = production(&database);
    let refused = serving.database(&two_tables()).await.unwrap_err();
    assert!(matches!(refused, Error::SchemaBehind { version: 1, .. }), "{refused}");

    // Without a password for messaging, as a job that only migrates has none.
    let env = Env::from_pairs([("DATABASE_URL", database.url()), ("ENVIRONMENT", "production".to_owned())]);
    let migrating = Node::with_env(super::IDENTITY, env, Command::Migrate).unwrap();
    migrating.migrate(&two_tables()).await.unwrap();
    migrating.migrate(&two_tables()).await.unwrap();

    serving.database(&two_tables()).await.unwrap();
    let older = migrator(&["CREATE TABLE one (id bigint)"]);
    serving.database(&older).await.expect("a newer schema does not stop an older version");
    migrating.migrate(&older).await.expect("nor when it is told to migrate, as after a roll-back");
    let changed = migrator(&["CREATE TABLE other (id bigint)"]);
    assert!(matches!(serving.database(&changed).await, Err(Error::Migrate(_))));
    assert!(matches!(migrating.migrate(&changed).await, Err(Error::Migrate(_))));
}

#[tokio::test]
async fn replicas_that_start_together_migrate_once() {
    let database = empty().await;
    let nodes: Vec<Node> = (0..4).map(|_| node(&[("DATABASE_URL", &database.url())])).collect();
    let migrator = two_tables();
    let pools = futures::future::join_all(nodes.iter().map(|node| node.database(&migrator))).await;
    assert!(pools.iter().all(Result::is_ok), "{pools:?}");
}

#[tokio::test]
async fn statements_and_lock_waits_are_bounded_by_the_server() {
    let database = empty().await;
    let node = node(&[
        ("DATABASE_URL", &database.url()),
        ("DATABASE_STATEMENT_TIMEOUT_MS", "3000"),
        ("DATABASE_LOCK_TIMEOUT_MS", "500"),
    ]);
    let pool = node.database(&two_tables()).await.unwrap();
    let code =
        |error: sqlx::Error| error.into_database_error().and_then(|error| error.code().map(String::from));

    let slow = sqlx::query("SELECT pg_sleep(10)").execute(&pool).await.unwrap_err();
    assert_eq!(code(slow).as_deref(), Some("57014"), "query_canceled");

    let mut holder = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE one").execute(&mut *holder).await.unwrap();
    let blocked = sqlx::query("SELECT id FROM one").execute(&pool).await.unwrap_err();
    assert_eq!(code(blocked).as_deref(), Some("55P03"), "lock_not_available");
}

#[tokio::test]
async fn a_pool_with_all_connections_at_work_is_busy_and_not_broken() {
    let database = empty().await;
    let node = node(&[("DATABASE_URL", &database.url()), ("DATABASE_MAX_CONNECTIONS", "1")]);
    let pool = node.database(&two_tables()).await.unwrap();
    let only = pool.acquire().await.unwrap();
    assert!(node.readiness().report().await.conditions.iter().all(|condition| condition.ready));

    drop(only);
    pool.close().await;
    assert!(node.readiness().report().await.conditions.iter().all(|condition| !condition.ready));
}

#[tokio::test]
async fn a_database_that_is_away_is_waited_for_and_then_named() {
    let port = stampede_testkit::free_port();
    let url = format!("postgres://orders:hunter2@127.0.0.1:{port}/orders");
    let node = node(&[("DATABASE_URL", &url), ("STARTUP_TIMEOUT_MS", "1000")]);
    let error = node.database(&two_tables()).await.unwrap_err();
    let Error::Database(reason) = error else { panic!("{error}") };
    assert!(reason.to_string().contains("refused"), "{reason}");
}

#[tokio::test]
async fn a_wrong_user_is_not_tried_again() {
    let database = empty().await;
    // The server of the tests trusts everybody, but nobody can be this user.
    let url = database.url().replace("//postgres", "//nobody-of-this-name");
    let node = node(&[("DATABASE_URL", &url), ("STARTUP_TIMEOUT_MS", "600000")]);
    let error = timeout(PATIENCE, async { node.database(&two_tables()).await.unwrap_err() }).await.unwrap();
    assert!(matches!(error, Error::Database(sqlx::Error::Database(_))), "{error}");
}

#[tokio::test]
async fn in_production_a_user_may_still_be_made() {
    let database = empty().await;
    let url = database.url().replace("//postgres", "//nobody-of-this-name");
    let pairs = [("DATABASE_URL", &*url), ("ENVIRONMENT", "production"), ("STARTUP_TIMEOUT_MS", "3000")];
    let began = Instant::now();
    let error = node(&pairs).database(&two_tables()).await.unwrap_err();
    assert!(matches!(error, Error::Database(sqlx::Error::Database(_))), "{error}");
    assert!(began.elapsed() >= Duration::from_millis(300), "it tried again: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_url_that_is_none_is_not_repeated() {
    for (pairs, expected) in [
        (vec![("DATABASE_URL", "mysql://orders:hunter2@h/d")], "DATABASE_URL is not valid"),
        (vec![("DATABASE_URL", "postgres://orders:hunter2@h:port/d")], "DATABASE_URL is not valid"),
        (vec![], "DATABASE_URL is not set"),
    ] {
        let error = node(&pairs).database(&two_tables()).await.unwrap_err().to_string();
        assert!(error.starts_with(expected) && !error.contains("hunter2"), "{error}");
    }
}
