//! A buyer, and the node that is asked.

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use stampede_contracts::api::{self, OrderState};
use stampede_contracts::{HoldId, OrderId, SessionId};
use stampede_testkit::eventually;
use tokio::runtime::Runtime;

use crate::stage::{CARD, EMAIL, NAME, PATIENCE};

/// The deadline of requests that are to be answered 202.
pub const SHORT_MS: u64 = 800;

/// What a buyer sends.
#[derive(Debug, Clone)]
pub struct Cart {
    pub session: SessionId,
    pub hold: HoldId,
    pub key: String,
    pub body: Value,
}

impl Cart {
    pub fn of(session: SessionId, hold: HoldId) -> Self {
        let body = json!({
            "hold_id": hold,
            "buyer": {"name": NAME, "email": EMAIL},
            "payment": {"card_token": CARD},
        });
        Self { session, hold, key: format!("\"{}\"", uuid::Uuid::new_v4()), body }
    }
}

/// A node of orders, in a runtime of its own.
pub struct Node {
    base: String,
    http: Client,
    runtime: Option<Runtime>,
}

/// An answer, down to the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub location: Option<String>,
    pub retry_after: Option<String>,
    pub media_type: String,
    pub body: String,
}

impl Answer {
    async fn read(response: Response) -> Self {
        let header =
            |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        Self {
            status: response.status(),
            location: header("location"),
            retry_after: header("retry-after"),
            media_type: header("content-type").unwrap_or_default(),
            body: response.text().await.unwrap(),
        }
    }

    pub fn order(&self) -> api::Order {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn code(&self) -> String {
        let problem: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(self.media_type, "application/problem+json");
        problem["code"].as_str().unwrap().to_owned()
    }
}

impl Node {
    /// The node that runs in `runtime`, as soon as it takes requests.
    pub async fn start(port: u16, runtime: Runtime) -> Self {
        // Each request has a connection of its own, so that none meets one which a crash has left behind.
        let http = Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let node = Self { base: format!("http://127.0.0.1:{port}"), http, runtime: Some(runtime) };
        eventually(PATIENCE, async || node.anonymous("/v1/ticket-keys").send().await.is_ok()).await;
        node
    }

    /// Everything stops at its next await, and nobody says goodbye.
    pub fn crash(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    pub fn post(&self, path: &str, session: SessionId) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.base)).header("stampede-session", session.to_string())
    }

    pub fn get(&self, path: &str, session: SessionId) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.base)).header("stampede-session", session.to_string())
    }

    /// Without any session.
    pub fn anonymous(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.base))
    }

    /// A request to place the order.
    pub fn placing(&self, cart: &Cart, deadline_ms: u64) -> RequestBuilder {
        self.post("/v1/orders", cart.session)
            .header("idempotency-key", &cart.key)
            .header("deadline-ms", deadline_ms)
            .json(&cart.body)
    }

    /// Places the order and waits for the answer.
    pub async fn place(&self, cart: &Cart) -> Answer {
        self.place_within(cart, 10_000).await
    }

    pub async fn place_within(&self, cart: &Cart, deadline_ms: u64) -> Answer {
        answered(|| self.placing(cart, deadline_ms)).await
    }

    pub async fn cancel(&self, order: OrderId, session: SessionId) -> Answer {
        self.cancel_within(order, session, 10_000).await
    }

    pub async fn cancel_within(&self, order: OrderId, session: SessionId, deadline_ms: u64) -> Answer {
        let path = format!("/v1/orders/{order}/cancel");
        answered(|| self.post(&path, session).header("deadline-ms", deadline_ms)).await
    }

    pub async fn order(&self, order: OrderId, session: SessionId) -> api::Order {
        fetch(self.get(&format!("/v1/orders/{order}"), session)).await.order()
    }

    /// Waits until the order is in this state.
    #[track_caller]
    pub fn reaches(
        &self,
        order: OrderId,
        session: SessionId,
        state: OrderState,
    ) -> impl Future<Output = ()> + '_ {
        eventually(PATIENCE, async move || {
            let read = fetch(self.get(&format!("/v1/orders/{order}"), session)).await;
            read.status == StatusCode::OK && read.order().state == state
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a request is answered. On a machine with other things to do its deadline may pass first; then the answer is 504, and
/// the same request brings the truth, to a test as to any client.
async fn answered(request: impl Fn() -> RequestBuilder) -> Answer {
    let mut last = None;
    eventually(PATIENCE, async || {
        let answer = fetch(request()).await;
        let is_answer = answer.status != StatusCode::GATEWAY_TIMEOUT;
        last = Some(answer);
        is_answer
    })
    .await;
    last.unwrap()
}

/// Sends a request and reads the answer.
pub async fn fetch(request: RequestBuilder) -> Answer {
    Answer::read(request.send().await.unwrap()).await
}

/// The timeline as words.
pub fn told(order: &api::Order) -> Vec<String> {
    order.timeline.iter().map(|entry| format!("{} {}", entry.step, entry.state)).collect()
}
