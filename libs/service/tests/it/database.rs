//! The pool and the schema.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use reqwest::Url;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr};
use stampede_service::{Command, Env, Error, Node};
use stampede_testkit::{Database, Proxy, eventually, fresh_database};
use tokio::time::timeout;

use crate::{PATIENCE, Served, node};

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
async fn what_serves_reads_and_writes_rows_and_cannot_change_the_schema_nor_what_was_migrated() {
    let database = empty().await;
    let serving: String =
        sqlx::query_scalar("SELECT current_database()::text").fetch_one(database.pool()).await.unwrap();
    let (owner, successor) = (format!("{serving}_owner"), format!("{serving}_2"));
    let superuser = async |statement: String| {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(database.pool()).await.unwrap();
    };
    for role in [&serving, &owner] {
        superuser(format!("CREATE ROLE {role} LOGIN PASSWORD 'old'")).await;
    }
    superuser(format!("DROP TABLE _sqlx_migrations; ALTER DATABASE {serving} OWNER TO {owner}")).await;
    let url = |role: &str, password: &str| {
        let mut url: Url = database.url().parse().unwrap();
        url.set_username(role).unwrap();
        url.set_password(Some(password)).unwrap();
        url.to_string()
    };
    let behind = node(&[("DATABASE_URL", &url(&serving, "old")), ("STARTUP_TIMEOUT_MS", "200")]);
    let refused = behind.database(&two_tables()).await.unwrap_err();
    assert!(matches!(refused, Error::SchemaBehind { .. }), "on a laptop too: {refused}");

    // As the init containers of three replicas do it.
    let env = Env::from_pairs([("DATABASE_URL", url(&owner, "old"))]);
    let migrators: Vec<Node> =
        (0..3).map(|_| Node::with_env(super::IDENTITY, env.clone(), Command::Migrate).unwrap()).collect();
    let (tables, more) = (
        two_tables(),
        migrator(&[
            "CREATE TABLE one (id bigint)",
            "CREATE TABLE two (id bigint)",
            "CREATE TABLE three (id bigserial)",
        ]),
    );
    for migrator in [&tables, &more] {
        let migrated = futures::future::join_all(migrators.iter().map(|node| node.migrate(migrator))).await;
        assert!(migrated.iter().all(Result::is_ok), "{migrated:?}");
    }

    // Its password is replaced by a second role, which has its rights; both are let in meanwhile.
    superuser(format!("CREATE ROLE {successor} LOGIN PASSWORD 'new' IN ROLE {serving}")).await;
    for (role, password) in [(&serving, "old"), (&successor, "new")] {
        let pool = node(&[("DATABASE_URL", &url(role, password))]).database(&more).await.unwrap();
        for statement in [
            "INSERT INTO one VALUES (7)",
            "INSERT INTO three DEFAULT VALUES",
            "UPDATE one SET id = 8",
            "DELETE FROM one",
        ] {
            sqlx::raw_sql(statement).execute(&pool).await.unwrap();
        }
        for statement in [
            "ALTER TABLE one ADD COLUMN more int",
            "DROP TABLE one",
            "TRUNCATE one",
            "CREATE TABLE four (id bigint)",
            "ALTER TABLE one DISABLE TRIGGER ALL",
            "DELETE FROM _sqlx_migrations",
            "DROP SCHEMA public CASCADE",
        ] {
            let refused = sqlx::raw_sql(statement).execute(&pool).await.unwrap_err();
            let code =
                refused.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
            assert_eq!(code.as_deref(), Some("42501"), "{statement}: {refused}");
        }
        pool.close().await;
    }
    superuser(format!("REASSIGN OWNED BY {owner} TO CURRENT_USER")).await;
    // One after the other: Postgres 15 drops what it granted by default for both of them twice, and fails.
    superuser(format!("DROP OWNED BY {owner}")).await;
    superuser(format!("DROP OWNED BY {serving}")).await;
    superuser(format!("DROP ROLE {successor}; DROP ROLE {serving}; DROP ROLE {owner}")).await;
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

/// Why the node is not ready, if it is not.
async fn reason(node: &Node) -> Option<String> {
    node.readiness().report().await.conditions.into_iter().find_map(|condition| condition.reason)
}

#[tokio::test]
async fn a_node_whose_database_vanished_is_not_ready_until_it_is_back() {
    let database = empty().await;
    let proxy = Proxy::start(&database.url()).await;
    let node =
        node(&[("DATABASE_URL", &proxy.url(&database.url())), ("DATABASE_STATEMENT_TIMEOUT_MS", "100")]);
    let pool = node.database(&two_tables()).await.unwrap();
    assert_eq!(reason(&node).await, None);
    proxy.freeze();
    eventually(PATIENCE, async || reason(&node).await.is_some()).await;
    timeout(PATIENCE, pool.begin()).await.expect("it has a bound").unwrap_err();
    proxy.thaw();
    eventually(PATIENCE, async || reason(&node).await.is_none()).await;
    pool.begin().await.unwrap();
}

#[tokio::test]
async fn a_node_whose_database_became_read_only_is_not_ready_until_it_is_not() {
    let database = empty().await;
    let node = node(&[("DATABASE_URL", &database.url())]);
    let _pool = node.database(&two_tables()).await.unwrap();
    database.set_read_only("on").await;
    let says = "the database takes no writes";
    eventually(PATIENCE, async || reason(&node).await.is_some_and(|reason| reason.contains(says))).await;
    database.set_read_only("off").await;
    eventually(PATIENCE, async || reason(&node).await.is_none()).await;
}

#[tokio::test]
async fn a_migration_that_waits_for_a_lock_lets_the_traffic_pass() {
    let database = empty().await;
    let node = node(&[("DATABASE_URL", &database.url())]);
    let pool = node.database(&two_tables()).await.unwrap();
    let mut reader = pool.begin().await.unwrap();
    sqlx::query("SELECT id FROM one").fetch_all(&mut *reader).await.unwrap();

    let next = migrator(&[
        "CREATE TABLE one (id bigint)",
        "CREATE TABLE two (id bigint)",
        "ALTER TABLE one ADD COLUMN later text",
    ]);
    let (migrated, ()) = tokio::join!(node.migrate(&next), async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'one'::regclass";
        let is_waiting = async || sqlx::query_scalar::<_, i64>(waiting).fetch_one(&pool).await.unwrap() > 0;
        eventually(PATIENCE, is_waiting).await;
        // Within the limit of a request's own wait for a lock, two seconds.
        sqlx::query("SELECT id FROM one").fetch_all(&pool).await.unwrap();
        reader.commit().await.unwrap();
    });
    migrated.unwrap();
    sqlx::query("SELECT later FROM one").fetch_all(&pool).await.unwrap();
}

#[tokio::test]
async fn a_child_that_waits_for_its_database_does_not_end_the_process() {
    let database = empty().await;
    let node = node(&[("DATABASE_URL", &database.url())]);
    let pool = node.database(&two_tables()).await.unwrap();
    let (failures, last) = (Arc::new(AtomicU32::new(0)), node.draining());
    let (counted, asked) = (Arc::clone(&failures), pool.clone());
    node.supervise("child", move || {
        let (counted, asked) = (Arc::clone(&counted), asked.clone());
        async move {
            loop {
                if let Err(error) = sqlx::query("SELECT id FROM one").execute(&asked).await {
                    counted.fetch_add(1, Ordering::Relaxed);
                    return Err(error.into());
                }
                tokio::task::yield_now().await;
            }
        }
    });
    let served = Served::start(node, Router::new()).await;
    database.shut().await;
    // One more than a defect may have.
    eventually(PATIENCE, async || failures.load(Ordering::Relaxed) > 5 || last.is_cancelled()).await;
    assert!(!last.is_cancelled(), "after {failures:?} failures");
    database.open().await;
    assert_eq!(served.stop().await, ExitCode::SUCCESS);
}
