//! A simulator of its own for each test.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use stampede_postgres::Transaction;
use stampede_psp_sim::app::{self, MIGRATOR};
use stampede_psp_sim::card::Card;
use stampede_psp_sim::config::Config;
use stampede_psp_sim::knobs::Knobs;
use stampede_psp_sim::provider::Provider;
use stampede_psp_sim::webhooks::Target;
use stampede_testkit::{Database, fresh_database};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Longer than anything that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const API_KEY: &str = "sk_test";
/// What replaces it.
pub const NEXT_API_KEY: &str = "sk_next";

/// A running simulator.
pub struct Sim {
    pub url: String,
    pub provider: Provider,
    pub database: Database,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// An answer, as far as a test looks at it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Answer {
    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }
}

/// A simulator without webhooks, in which nothing lands after a second.
pub async fn sim() -> Sim {
    sim_with(Duration::from_secs(1), None).await
}

pub async fn sim_with(max_in_flight: Duration, webhooks: Option<Target>) -> Sim {
    install_crypto();
    let database = fresh_database("psp", &MIGRATOR).await;
    let config = Config {
        api_key: format!("{API_KEY},{NEXT_API_KEY}").parse().unwrap(),
        tokens_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        tokens_url: None,
        webhooks,
        max_in_flight,
    };
    let app = app::build(database.pool().clone(), &config, TaskTracker::new()).unwrap();
    let router = app.api.merge(app.knobs);
    let (url, server) = serve(router).await;
    let mut tasks = vec![server];
    if let Some(sender) = app.sender {
        let sending = tokio::spawn(async move { sender.run(CancellationToken::new()).await.unwrap() });
        tasks.push(AbortOnDropHandle::new(sending));
    }
    Sim { url, provider: app.provider, database, _tasks: tasks }
}

/// Serves a router on a port of its own until the handle is dropped.
pub async fn serve(router: Router) -> (String, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, AbortOnDropHandle::new(server))
}

/// A client whose patience is short, because some answers never come.
pub fn client() -> Client {
    install_crypto();
    Client::builder().timeout(Duration::from_secs(3)).build().unwrap()
}

fn install_crypto() {
    // It fails when another test of the process was faster, and then that one is as good.
    let _installed = rustls::crypto::ring::default_provider().install_default();
}

impl Sim {
    pub fn set(&self, knobs: Knobs) {
        self.provider.panel().set(knobs).unwrap();
    }

    /// Nothing is written into the ledger until this ends; it can be read.
    pub async fn hold_ledger(&self) -> Transaction {
        let mut held = self.database.pool().begin().await.unwrap();
        sqlx::query("LOCK TABLE operation IN SHARE MODE").execute(&mut *held).await.unwrap();
        held
    }

    /// `Err` when no answer came.
    pub async fn post(&self, key: &str, path: &str, body: Value) -> Result<Answer, reqwest::Error> {
        let request = client().post(format!("{}{path}", self.url)).bearer_auth(API_KEY);
        let response = request.header("idempotency-key", key).json(&body).send().await?;
        Ok(Answer { status: response.status(), body: response.json().await? })
    }

    pub async fn get(&self, path: &str) -> Result<Answer, reqwest::Error> {
        let response = client().get(format!("{}{path}", self.url)).bearer_auth(API_KEY).send().await?;
        Ok(Answer { status: response.status(), body: response.json().await? })
    }

    pub async fn authorise(&self, key: &str, token: &str) -> Result<Answer, reqwest::Error> {
        let body = json!({ "card_token": token, "amount": 4_500, "currency": "EUR", "reference": "ord_1" });
        self.post(key, "/v1/authorisations", body).await
    }

    /// Authorises with a card that works, and returns the authorisation's id.
    pub async fn authorised(&self, key: &str, card: Card) -> String {
        let answer = self.authorise(key, &card.token()).await.unwrap();
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        answer.text("id").to_owned()
    }

    pub async fn capture(&self, key: &str, authorisation: &str) -> Result<Answer, reqwest::Error> {
        self.post(key, &format!("/v1/authorisations/{authorisation}/capture"), json!({})).await
    }

    pub async fn void(&self, key: &str, authorisation: &str) -> Result<Answer, reqwest::Error> {
        self.post(key, &format!("/v1/authorisations/{authorisation}/void"), json!({})).await
    }

    pub async fn refund(&self, key: &str, capture: &str, amount: i64) -> Result<Answer, reqwest::Error> {
        self.post(key, &format!("/v1/captures/{capture}/refund"), json!({ "amount": amount })).await
    }

    pub async fn look_up(&self, key: &str) -> Answer {
        self.get(&format!("/v1/operations/{key}")).await.unwrap()
    }

    pub async fn cancel(&self, key: &str) -> Answer {
        self.post("unused", &format!("/v1/operations/{key}/cancel"), json!({})).await.unwrap()
    }

    /// `kind status` of every row of the ledger, page by page.
    pub async fn ledger(&self) -> Vec<String> {
        let (mut after, mut rows) = (0, Vec::new());
        loop {
            let page = self.get(&format!("/v1/ledger?after={after}&limit=2")).await.unwrap().body;
            let operations = page["operations"].as_array().unwrap();
            rows.extend(
                operations.iter().map(|row| {
                    format!("{} {}", row["kind"].as_str().unwrap(), row["status"].as_str().unwrap())
                }),
            );
            match page["next"].as_i64() {
                Some(next) => after = next,
                None => return rows,
            }
        }
    }
}
