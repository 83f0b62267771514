//! One part is away while the others go on: what needs it says so in time or makes do, what does not never notices.

use std::process::Command;
use std::time::Duration;

use reqwest::{Method, StatusCode, header};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPool};
use stampede::client::{Client, Reply, With, new_key};
use stampede_contracts::api::{self, OrderState};
use stampede_testkit::eventually;

use crate::stage::{GOOD_CARD, PATIENCE, Stage, best};

/// A request answers within its deadline, ten seconds where it names none, and a moment for a busy machine.
const IN_TIME: Duration = Duration::from_secs(12);

/// A process that hangs: it keeps its connections and answers nothing, until this is dropped.
pub(crate) struct Frozen(u32);

impl Frozen {
    pub(crate) fn process(stage: &Stage, name: &str) -> Self {
        let run = stage.platform.run_file().unwrap();
        let entry = run.processes.iter().find(|entry| entry.name == name).unwrap();
        let frozen = Self(entry.identity.as_ref().unwrap().pid);
        frozen.send("STOP");
        frozen
    }

    fn send(&self, signal: &str) {
        let status =
            Command::new("kill").args([&format!("-{signal}"), &self.0.to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-CONT", &self.0.to_string()]).status();
    }
}

/// What a process says of one of its destinations.
async fn destination(stage: &Stage, process: &str, name: &str) -> Value {
    let run = stage.platform.run_file().unwrap();
    let entry = run.processes.iter().find(|entry| entry.name == process).unwrap();
    let page = format!("http://127.0.0.1:{}/destinations", entry.ports["admin"]);
    let all: Value = reqwest::get(page).await.unwrap().json().await.unwrap();
    all.as_array().unwrap().iter().find(|destination| destination["name"] == name).unwrap().clone()
}

async fn circuit(stage: &Stage, process: &str, name: &str) -> String {
    destination(stage, process, name).await["circuit"].as_str().unwrap().to_owned()
}

async fn get(client: &Client, path: &str) -> Reply {
    client.send(Method::GET, path, With::default(), None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_provider_hangs_orders_are_accepted_and_complete_when_it_is_back() {
    let stage = Stage::start(&[]).await;
    let show = stage.general_admission("away", &[500]).await;
    // The circuit needs ten calls without an answer; later ones are not sent at all.
    let mut carts = Vec::new();
    for _ in 0..12 {
        let token = stage.token().await;
        let hold: api::Hold = stage.hold(&show, &token, 1).await.json().unwrap();
        carts.push((stage.new_order(&hold, GOOD_CARD).await, token));
    }
    let psp = Frozen::process(&stage, "psp-sim-1");
    let placing = carts.iter().map(|(order, token)| async {
        let body = serde_json::to_vec(order).unwrap();
        let (key, client) = (new_key(), &stage.client);
        let reply =
            client.send(Method::POST, "/v1/orders", With::token(token).key(&key), Some(body)).await.unwrap();
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{:?}", reply.problem());
        assert!(reply.took < IN_TIME, "{:?}", reply.took);
        assert!(reply.headers.contains_key(header::LOCATION));
        reply.json::<api::Order>().unwrap().order_id
    });
    let placed = futures::future::join_all(placing).await;
    eventually(PATIENCE, async || circuit(&stage, "payments-1", "provider").await == "open").await;

    // Browsing and holding never noticed.
    assert_eq!(get(&stage.client, "/v1/shows").await.status, StatusCode::OK);
    let token = stage.token().await;
    let reply = stage.hold(&show, &token, 1).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{:?}", reply.problem());
    assert!(reply.took < Duration::from_secs(3), "{:?}", reply.took);

    drop(psp);
    for (order, (_, token)) in placed.into_iter().zip(&carts) {
        stage.becomes(order, token, OrderState::Confirmed).await;
    }
    eventually(PATIENCE, async || circuit(&stage, "payments-1", "provider").await == "closed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_catalog_hangs_browsers_see_the_last_copy_with_its_age_and_buyers_buy() {
    let stage = Stage::start(&[]).await;
    let show = stage.general_admission("copy", &[100]).await;
    let path = format!("/v1/shows/{}", show.summary.show_id);
    let fresh = get(&stage.client, &path).await;
    assert!(!fresh.headers.contains_key(header::AGE));

    let catalog = Frozen::process(&stage, "catalog-1");
    let old = get(&stage.client, &path).await;
    assert_eq!((old.status, &old.body), (StatusCode::OK, &fresh.body), "{:?}", old.problem());
    assert!(old.headers.contains_key(header::AGE), "{:?}", old.headers);
    assert!(old.headers["cache-status"].to_str().unwrap().contains("hit; ttl=-"), "{:?}", old.headers);
    assert!(old.took < Duration::from_secs(6), "{:?}", old.took);

    // Of what nobody has seen there is no copy.
    let unseen = get(&stage.client, "/v1/shows?limit=7").await;
    assert_eq!(unseen.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(unseen.headers.contains_key(header::RETRY_AFTER));
    assert!(unseen.took < IN_TIME, "{:?}", unseen.took);

    // Once the circuit knows, or nobody is ready any more, copies come at once.
    eventually(PATIENCE, async || {
        let copy = get(&stage.client, &path).await;
        assert_eq!(copy.status, StatusCode::OK);
        copy.took < Duration::from_millis(500)
    })
    .await;
    let token = stage.token().await;
    let reply = stage.order(&show, &token, GOOD_CARD).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{:?}", reply.problem());

    drop(catalog);
    eventually(PATIENCE, async || !get(&stage.client, &path).await.headers.contains_key(header::AGE)).await;
}

/// The superuser's pool.
async fn postgres(stage: &Stage) -> PgPool {
    let run = stage.platform.run_file().unwrap();
    let (host, port) = run.urls.postgres.rsplit_once(':').unwrap();
    let options = PgConnectOptions::new()
        .host(host)
        .port(port.parse().unwrap())
        .username("postgres")
        .password(&stage.platform.secrets().unwrap().postgres_password("postgres").unwrap())
        .database("postgres");
    PgPool::connect_with(options).await.unwrap()
}

/// A database refuses everybody, or lets them in again.
async fn allow(postgres: &PgPool, database: &str, allowed: &str) {
    let change = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS {allowed}");
    sqlx::query(sqlx::AssertSqlSafe(change)).execute(postgres).await.unwrap();
    if allowed == "false" {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        sqlx::query(end).bind(database).execute(postgres).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_of_one_service_is_away_the_others_answer_in_time() {
    let stage = Stage::start(&[]).await;
    let show = stage.general_admission("database", &[500]).await;
    let path = format!("/v1/shows/{}", show.summary.show_id);
    assert_eq!(get(&stage.client, &path).await.status, StatusCode::OK);
    let postgres = postgres(&stage).await;

    for database in ["orders", "inventory", "catalog", "payments", "lobby", "notify"] {
        let token = stage.token().await;
        let held: api::Hold = stage.hold(&show, &token, 1).await.json().unwrap();
        let order = stage.new_order(&held, GOOD_CARD).await;
        allow(&postgres, database, "false").await;

        let key = new_key();
        let (looked, other, ordered) = tokio::join!(
            get(&stage.client, &path),
            async {
                let token = stage.token().await;
                let (key, wish) = (new_key(), best(&show, 1));
                stage.client.hold(show.summary.show_id, &wish, With::token(&token).key(&key)).await.unwrap()
            },
            stage.client.order(&order, With::token(&token).key(&key)),
        );
        let ordered = ordered.unwrap();
        for reply in [&looked, &other, &ordered] {
            assert!(reply.took < IN_TIME, "{database}: {:?}", reply.took);
        }
        // Shows are there in any case, from the last copy if need be.
        assert_eq!(looked.status, StatusCode::OK, "{database}: {:?}", looked.problem());
        let holds =
            if database == "inventory" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::CREATED };
        assert_eq!(other.status, holds, "{database}: {:?}", other.problem());
        match database {
            "orders" => assert!(ordered.status.is_server_error(), "{}", ordered.status),
            "inventory" | "payments" => {
                assert_eq!(ordered.status, StatusCode::ACCEPTED, "{:?}", ordered.problem());
            }
            _ => assert_eq!(ordered.status, StatusCode::CREATED, "{:?}", ordered.problem()),
        }

        allow(&postgres, database, "true").await;
        // The same key brings the truth, and the order its tickets.
        let mut placed = None;
        eventually(PATIENCE, async || {
            let reply = stage.client.order(&order, With::token(&token).key(&key)).await.unwrap();
            placed = reply.json::<api::Order>().ok();
            placed.is_some()
        })
        .await;
        stage.becomes(placed.unwrap().order_id, &token, OrderState::Confirmed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_replaced_and_put_back_while_services_run() {
    let stage = Stage::start(&[]).await;
    let policies = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_stampede"))
            .arg("policies")
            .args(words)
            .arg("--state")
            .arg(stage.platform.state.root())
            .output()
            .unwrap();
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        (output.status.success(), said)
    };
    let places = async || destination(&stage, "gateway-1", "inventory").await["places"].as_u64().unwrap();
    let before = places().await;
    let (done, said) = policies(&["set", "gateway.inventory", "bulkhead.places=3", "stack=off"]);
    assert!(done, "{said}");
    eventually(PATIENCE, async || places().await == 3).await;
    let policy = destination(&stage, "gateway-1", "inventory").await["policy"].clone();
    assert_eq!(policy["stack"], "off");
    assert!(policies(&["list"]).1.contains("replaced: gateway.inventory"));

    // Without any layers a purchase works as well.
    let (token, show) = (stage.token().await, stage.show("club").await);
    assert_eq!(stage.order(&show, &token, GOOD_CARD).await.status, StatusCode::CREATED);

    for (words, expected) in [
        (&["set", "gateway.nobody", "stack=off"][..], "there is no gateway.nobody"),
        (&["set", "gateway.inventory", "bulkhead.places=many"], "this makes no policy"),
        (&["set", "gateway.inventory", "attempt_ms=700000"], "this makes no policy"),
        (&["set", "gateway.inventory", "places=1"], "this makes no policy"),
    ] {
        let (done, said) = policies(words);
        assert!(!done && said.contains(expected), "{words:?}: {said}");
    }
    assert_eq!(places().await, 3);

    let (done, said) = policies(&["reset", "gateway.inventory"]);
    assert!(done, "{said}");
    eventually(PATIENCE, async || places().await == before).await;
}
