//! A server that vanishes, that ends sessions and that becomes read-only.
#![expect(clippy::unwrap_used, reason = "the helpers of a test end it as the test itself would")]

use std::time::Duration;

use sqlx::Executor;
use sqlx::migrate::Migrator;
use stampede_postgres::{Failure, Limits, Listener, PgPool};
use stampede_testkit::{Database, Proxy, eventually, fresh_database};
use tokio::time::timeout;

mod tls;

/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const LIMITS: Limits =
    Limits { connections: 2, wait: Duration::from_secs(1), statement: Duration::from_millis(200) };

async fn empty() -> Database {
    let database = fresh_database("postgres", &Migrator::with_migrations(Vec::new())).await;
    database.execute("CREATE TABLE seat (id bigint PRIMARY KEY)").await.unwrap();
    database
}

fn pool(url: &str) -> PgPool {
    PgPool::connect_lazy_with(LIMITS, url.parse().unwrap())
}

async fn behind_a_proxy() -> (Database, Proxy, PgPool) {
    let database = empty().await;
    let proxy = Proxy::start(&database.url()).await;
    let pool = pool(&proxy.url(&database.url()));
    (database, proxy, pool)
}

/// Its result, if it has one in time.
async fn ends<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.unwrap()
}

#[tokio::test]
async fn whatever_waits_for_a_server_that_vanished_ends() {
    let (_database, proxy, pool) = behind_a_proxy().await;
    let mut idle = pool.acquire().await.unwrap();
    let mut open = pool.begin().await.unwrap();
    let mut own = pool.connect().await.unwrap();
    open.execute("INSERT INTO seat VALUES (1)").await.unwrap();
    proxy.freeze();

    let ended = ends(Box::pin(async {
        tokio::join!(
            idle.execute("SELECT 1"),
            async { sqlx::query_scalar::<_, i64>("SELECT 1::bigint").fetch_all(&mut own).await },
            open.commit(),
            pool.connect(),
            pool.check(),
        )
    }));
    let (executed, fetched, committed, connected, checked) = ended.await;
    for error in [executed.err(), fetched.err(), committed.err(), connected.err()] {
        assert_eq!(Failure::of(&error.unwrap()), Failure::Outage);
    }
    assert!(checked.is_ok(), "a pool whose connections are all lent is a busy one");
    drop(idle);
    ends(pool.check()).await.unwrap_err();
    ends(pool.begin()).await.unwrap_err();
}

#[tokio::test]
async fn a_connection_given_back_while_the_server_vanished_is_missing_from_the_pool_for_a_moment_only() {
    let (database, proxy, pool) = behind_a_proxy().await;
    let (mut asking, open) = (pool.acquire().await.unwrap(), pool.begin().await.unwrap());
    proxy.freeze();
    // One in the middle of a statement, one in the middle of a transaction.
    assert!(timeout(Duration::ZERO, asking.execute("SELECT 1")).await.is_err());
    drop((asking, open));
    eventually(PATIENCE, async || pool.size() == 0).await;

    proxy.thaw();
    let mut all = Vec::new();
    for _ in 0..LIMITS.connections {
        all.push(ends(pool.acquire()).await.unwrap());
    }
    for connection in &mut all {
        connection.execute("SELECT 1").await.unwrap();
    }
    drop(database);
}

#[tokio::test]
async fn after_a_failover_each_lost_connection_fails_one_statement_at_most() {
    let (_database, proxy, pool) = behind_a_proxy().await;
    let all = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    drop(all);
    eventually(PATIENCE, async || pool.num_idle() == 2).await;
    proxy.lose();
    for _ in 0..LIMITS.connections {
        let _ = ends(pool.execute("SELECT 1")).await;
    }
    ends(pool.execute("SELECT 1")).await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_is_dropped_is_rolled_back() {
    let database = empty().await;
    let pool = pool(&database.url());
    let count = "SELECT count(*) FROM seat";
    let mut dropped = pool.begin().await.unwrap();
    dropped.execute("INSERT INTO seat VALUES (1)").await.unwrap();
    drop(dropped);
    let mut failed = pool.begin().await.unwrap();
    failed.execute("INSERT INTO seat VALUES (2)").await.unwrap();
    failed.execute("SELECT 1 / 0").await.unwrap_err();
    drop(failed);
    let mut kept = pool.begin().await.unwrap();
    kept.execute("INSERT INTO seat VALUES (3)").await.unwrap();
    kept.commit().await.unwrap();

    let mut all = vec![pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
    for connection in &mut all {
        let seen: i64 = sqlx::query_scalar(count).fetch_one(connection).await.unwrap();
        assert_eq!(seen, 1);
    }
}

#[tokio::test]
async fn a_listener_notices_that_its_server_vanished() {
    let (database, proxy, pool) = behind_a_proxy().await;
    let mut listener = Listener::connect(&pool, "seats").await.unwrap();
    database.execute("NOTIFY seats, 'one'").await.unwrap();
    assert_eq!(ends(listener.recv()).await.unwrap().payload(), "one");

    proxy.freeze();
    let error = ends(listener.recv()).await.unwrap_err();
    assert_eq!(Failure::of(&error), Failure::Outage, "{error}");
}

#[tokio::test]
async fn a_listener_whose_server_is_silent_but_well_hears_what_comes_later() {
    let (database, _proxy, pool) = behind_a_proxy().await;
    let mut listener = Listener::connect(&pool, "seats").await.unwrap();
    let (heard, ()) = tokio::join!(ends(listener.recv()), async {
        // Its own check, after a silence, shows that the silence is over.
        let asked = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT' AND state = 'idle'";
        eventually(PATIENCE, async || !database.fetch_all(asked).await.unwrap().is_empty()).await;
        database.execute("NOTIFY seats, 'later'").await.unwrap();
    });
    assert_eq!(heard.unwrap().payload(), "later");
}

#[tokio::test]
async fn of_a_database_that_became_read_only_no_connection_is_kept() {
    let database = empty().await;
    let pool = pool(&database.url());
    pool.execute("INSERT INTO seat VALUES (1)").await.unwrap();
    pool.check().await.unwrap();
    database.set_read_only("on").await;
    // Ends what is left of the old session.
    let _ = pool.execute("SELECT 1").await;

    let error = pool.execute("INSERT INTO seat VALUES (2)").await.unwrap_err();
    assert_eq!((Failure::of(&error), Failure::of(&error).code().status()), (Failure::Outage, 503), "{error}");
    assert_eq!(pool.size(), 0, "the next statement may reach another server");
    pool.check().await.unwrap_err();
    assert_eq!(pool.size(), 0);

    database.set_read_only("off").await;
    pool.execute("INSERT INTO seat VALUES (2)").await.unwrap();
    pool.check().await.unwrap();
}

#[tokio::test]
async fn after_a_migration_the_statements_of_before_work_at_the_second_attempt() {
    let database = empty().await;
    let pool =
        PgPool::connect_lazy_with(Limits { connections: 1, ..LIMITS }, database.url().parse().unwrap());
    let all = || sqlx::query("SELECT * FROM seat").fetch_all(&pool);
    all().await.unwrap();
    database.execute("ALTER TABLE seat ADD COLUMN row text").await.unwrap();
    let error = all().await.unwrap_err();
    assert_eq!(Failure::of(&error), Failure::Conflict, "{error}");
    all().await.unwrap();
}

#[tokio::test]
async fn what_postgres_says_is_an_outage_or_not() {
    let database = empty().await;
    let pool =
        pool(&format!("{}?options=-c%20lock_timeout%3D20%20-c%20statement_timeout%3D50", base(&database)));
    let mut lock = database.pool().begin().await.unwrap();
    lock.execute("LOCK TABLE seat").await.unwrap();
    for (sql, meaning) in [
        ("SELECT pg_sleep(10)", Failure::Outage),
        ("SELECT FROM seat", Failure::Conflict),
        ("SELECT 1 / 0", Failure::Defect),
        ("SELECT 99999999999999999999::bigint", Failure::Defect),
        ("SELECT FROM nowhere", Failure::Defect),
    ] {
        let error = pool.execute(sql).await.unwrap_err();
        assert_eq!(Failure::of(&error), meaning, "{sql}: {error}");
    }
}

/// Its URL without parameters.
fn base(database: &Database) -> String {
    database.url().split('?').next().unwrap().to_owned()
}
