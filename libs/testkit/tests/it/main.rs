//! The servers that tests get are real, their own, and gone afterwards.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod layer;

use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::{self, stream};
use sqlx::migrate::Migrator;
use stampede_testkit::{Nats, eventually, free_port, fresh_database, postgres_url};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_port_is_drawn_once_while_its_test_runs() {
    // To another process a bound address is the same as to another socket of ours.
    assert!(UdpSocket::bind(("127.0.0.1", free_port())).is_err());
}

fn listens(nats: &Nats) -> bool {
    let address = nats.url();
    TcpStream::connect(address.trim_start_matches("nats://")).is_ok()
}

async fn make_stream(nats: &Nats) {
    let config = stream::Config { name: "S".into(), subjects: vec!["s".into()], ..stream::Config::default() };
    jetstream::new(nats.client().await).create_stream(config).await.unwrap();
}

async fn has_stream(nats: &Nats) -> bool {
    jetstream::new(nats.client().await).get_stream("S").await.is_ok()
}

#[tokio::test]
async fn a_server_keeps_its_store_over_a_crash_and_loses_it_when_told() {
    let mut nats = Nats::start().await;
    make_stream(&nats).await;
    nats.stop();
    assert!(!listens(&nats));
    nats.restart().await;
    assert!(has_stream(&nats).await);
    nats.lose_store().await;
    assert!(!has_stream(&nats).await);
}

#[tokio::test]
async fn two_servers_share_nothing_and_end_with_their_values() {
    let (first, second) = (Nats::start().await, Nats::start().await);
    make_stream(&first).await;
    assert!(!has_stream(&second).await);
    let address = first.url();
    drop(first);
    assert!(TcpStream::connect(address.trim_start_matches("nats://")).is_err());
    assert!(listens(&second));
}

#[tokio::test]
async fn a_frozen_server_answers_when_it_is_thawed() {
    let nats = Nats::start().await;
    let client = nats.client().await;
    let mut inbox = client.subscribe("x").await.unwrap();
    client.flush().await.unwrap();
    nats.freeze();
    // The signal takes effect a moment later: what is published then is answered only after the thaw.
    eventually(PATIENCE, async || {
        client.publish("x", "y".into()).await.unwrap();
        let next = futures::StreamExt::next(&mut inbox);
        tokio::time::timeout(Duration::from_millis(100), next).await.is_err()
    })
    .await;
    nats.thaw();
    assert!(futures::StreamExt::next(&mut inbox).await.is_some());
}

#[tokio::test]
async fn users_of_the_configuration_are_let_in_and_nobody_else() {
    let nats = Nats::start_with_config("authorization { users: [ { user: a, password: b } ] }").await;
    let client = nats.client_as("a", "b").await;
    eventually(PATIENCE, async || client.connection_state() == State::Connected).await;
    assert!(async_nats::connect(nats.url()).await.is_err());
}

#[tokio::test]
async fn a_database_is_migrated_its_own_and_dropped() {
    let directory =
        std::env::temp_dir().join(format!("stampede-migrations-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("0001_seats.sql"), "CREATE TABLE seats (id int)").unwrap();
    let migrator = Migrator::new(directory.clone()).await.unwrap();

    let (first, second) = (fresh_database("Own-1", &migrator).await, fresh_database("own", &migrator).await);
    sqlx::query("INSERT INTO seats VALUES (1)").execute(first.pool()).await.unwrap();
    let count = "SELECT count(*) FROM seats";
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&*second).await.unwrap(), 0);

    let url = first.url();
    assert!(url.contains("/test_own1_"), "{url}");
    let open = sqlx::PgPool::connect(&url).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&open).await.unwrap(), 1);
    drop(first);
    assert!(sqlx::PgPool::connect(&url).await.is_err());
    assert!(sqlx::PgPool::connect(&postgres_url()).await.is_ok());
    std::fs::remove_dir_all(directory).unwrap();
}
