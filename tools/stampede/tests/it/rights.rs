//! Nobody may do more than its work needs.

use std::time::Duration;

use futures::StreamExt;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use stampede::platform::Platform;

use crate::infrastructure;

const DATABASES: [&str; 7] = ["psp_sim", "catalog", "inventory", "notify", "payments", "lobby", "orders"];

async fn connect(platform: &Platform, role: &str, database: &str) -> sqlx::Result<PgConnection> {
    let run = platform.run_file().unwrap();
    let (host, port) = run.urls.postgres.split_once(':').unwrap();
    let password = platform.secrets().unwrap().postgres_password(role).unwrap();
    let options = PgConnectOptions::new_without_pgpass().host(host).port(port.parse().unwrap());
    options.username(role).password(&password).database(database).connect().await
}

#[tokio::test]
async fn a_role_reaches_only_its_own_database() {
    let platform = infrastructure().await;
    for own in DATABASES {
        for role in [own, &format!("{own}_owner")] {
            for database in DATABASES.into_iter().chain(["postgres", "template1"]) {
                let reached = connect(&platform, role, database).await.is_ok();
                assert_eq!(reached, own == database, "{role} in {database}");
            }
        }
    }
}

#[tokio::test]
async fn the_verifier_reads_all_and_writes_nothing() {
    let platform = infrastructure().await;
    for database in DATABASES {
        let mut owner = connect(&platform, &format!("{database}_owner"), database).await.unwrap();
        sqlx::raw_sql("CREATE TABLE t (x int); INSERT INTO t VALUES (7)").execute(&mut owner).await.unwrap();
        owner.close().await.unwrap();
        let url = platform.run_file().unwrap().verifier_url(database, &platform.secrets().unwrap()).unwrap();
        let mut verifier = PgConnection::connect(&url).await.unwrap();
        let x: i32 = sqlx::query_scalar("SELECT x FROM t").fetch_one(&mut verifier).await.unwrap();
        assert_eq!(x, 7);
        for statement in [
            "INSERT INTO t VALUES (8)",
            "SET default_transaction_read_only = off; DELETE FROM t",
            "CREATE TABLE u (x int)",
        ] {
            let refused = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut verifier).await;
            assert!(refused.is_err(), "{statement}");
        }
    }
}

#[tokio::test]
async fn passwords_are_wanted_and_reach_no_log() {
    let platform = infrastructure().await;
    let run = platform.run_file().unwrap();
    let (host, port) = run.urls.postgres.split_once(':').unwrap();
    let options = PgConnectOptions::new_without_pgpass().host(host).port(port.parse().unwrap());
    for (role, password) in [("orders", ""), ("orders", "guess"), ("postgres", "postgres")] {
        assert!(
            options.clone().username(role).password(password).database("orders").connect().await.is_err()
        );
    }
    let wrong = async_nats::ConnectOptions::with_user_and_password("orders".to_owned(), "guess".to_owned());
    assert!(wrong.connect(&run.urls.nats).await.is_err());
    assert!(async_nats::connect(&run.urls.nats).await.is_err());

    let secrets = std::fs::read_dir(platform.state.secrets()).unwrap();
    let secrets: Vec<String> = secrets
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap().trim().to_owned())
        .collect();
    assert!(secrets.len() > 10);
    let logs = std::fs::read_dir(platform.state.logs()).unwrap().map(|file| file.unwrap().path());
    for path in logs.chain([platform.state.run_file(), platform.state.output()]) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!secrets.iter().any(|secret| text.contains(secret.as_str())), "{}", path.display());
    }
}

#[tokio::test]
async fn a_strange_service_user_is_refused_on_anothers_subject() {
    let platform = infrastructure().await;
    let nats = async |user: &str| {
        let password = platform.secrets().unwrap().nats_password(user).unwrap();
        let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password);
        options.connect(platform.run_file().unwrap().urls.nats).await.unwrap()
    };
    let operator = nats("operator").await;
    let mut seen = operator.subscribe("evt.>").await.unwrap();
    operator.flush().await.unwrap();

    let payments = nats("payments").await;
    payments.publish("evt.orders.order.v1.x", "forged".into()).await.unwrap();
    payments.publish("evt.payments.result.v1.x", "true".into()).await.unwrap();
    payments.flush().await.unwrap();

    // The server keeps the order of one connection, so the forged one would have come first.
    let first = tokio::time::timeout(Duration::from_secs(5), seen.next()).await.unwrap().unwrap();
    assert_eq!(first.subject.as_str(), "evt.payments.result.v1.x");
}
