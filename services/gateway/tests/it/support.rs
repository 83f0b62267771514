//! The stage: NATS with the rights of a real run, a gateway, and players for its neighbours.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use stampede_bus::{Bus, Responder, ResponderSettings, Settings};
use stampede_contracts::{Heartbeat, Problem, ShowId, Timestamp, topology};
use stampede_service::{Command, Env, Node};
use stampede_testkit::{Nats, eventually, free_port, provision};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Long enough for a busy machine; nothing that succeeds waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const OPERATOR_TOKEN: &str = "the-operators-token-of-the-test";

/// A gateway and what surrounds it; all of it ends with this value.
pub struct Stage {
    pub nats: Nats,
    pub operator: Bus,
    /// `http://127.0.0.1:…`
    pub base: String,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub client: reqwest::Client,
    /// The gateway's environment.
    pub keys: Vec<(&'static str, String)>,
    /// Cancelling it begins the gateway's draining.
    pub draining: CancellationToken,
    over: CancellationToken,
    _ends: DropGuard,
}

impl Stage {
    /// A gateway with generous limits.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A gateway with these keys on top of what it needs.
    pub async fn start_with(keys: &[(&'static str, &str)]) -> Self {
        let nats = Nats::start_with_config(&accounts()).await;
        let operator = connect(&nats, "operator").await;
        provision(operator.jetstream()).await;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let defaults = [
            ("NATS_URL", nats.url()),
            ("NATS_PASSWORD", "gateway".to_owned()),
            ("HTTP_LISTEN", address.to_string()),
            ("SESSION_KEY", "a1".repeat(32)),
            ("FINGERPRINT_KEY", "b2".repeat(32)),
            ("OPERATOR_TOKEN", OPERATOR_TOKEN.to_owned()),
            // Tests are about deadlines that are missed, too.
            ("DEADLINE_MIN_MS", "1".to_owned()),
            ("TOKENS_PUBLIC_URL", "http://127.0.0.1:9/tokens".to_owned()),
        ];
        let keys = keys.iter().map(|(key, value)| (*key, (*value).to_owned()));
        let keys: Vec<_> = defaults.into_iter().chain(keys).collect();
        let env = Env::from_pairs(keys.iter().cloned());
        let node = Node::with_env(stampede_gateway::IDENTITY, env, Command::Serve).unwrap();
        let (admin, draining) = (node.admin_address().unwrap(), node.draining());
        tokio::spawn(async move { stampede_gateway::run(node).await.unwrap() });
        let over = CancellationToken::new();
        let stage = Self {
            nats,
            operator,
            base: format!("http://{address}"),
            address,
            admin,
            client: client(),
            keys,
            draining,
            _ends: over.clone().drop_guard(),
            over,
        };
        eventually(PATIENCE, async || stage.request(Method::GET, "/").send().await.is_ok()).await;
        stage
    }

    /// A service that answers with `router`; the gateway has found it when this returns.
    pub async fn play(&self, service: &'static str, router: Router) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let over = self.over.clone();
        tokio::spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(over.cancelled_owned()).await
        });
        self.announce(service, address);
        let probe = match service {
            "catalog" => "/v1/shows?probe".to_owned(),
            "lobby" => format!("/v1/shows/{}/lobby?probe", ShowId::new()),
            _ => "/v1/ticket-keys?probe".to_owned(),
        };
        let found = async || {
            let answer = self.get(&probe).header("operator-token", OPERATOR_TOKEN).send().await.unwrap();
            answer.status() != StatusCode::SERVICE_UNAVAILABLE
        };
        eventually(PATIENCE, found).await;
        address
    }

    /// Heartbeats of a service at `address`, whether anybody is there or not.
    pub fn announce(&self, service: &'static str, address: SocketAddr) {
        let heartbeat = Heartbeat {
            service: service.to_owned(),
            instance: format!("{service}-{}", address.port()),
            version: "0.0.0".to_owned(),
            address: Some(address.to_string()),
            admin: String::new(),
            ready: true,
            started_at: Timestamp::now(),
        };
        let (bus, over) = (self.operator.clone(), self.over.clone());
        tokio::spawn(async move { bus.heartbeat(move || std::future::ready(heartbeat.clone()), over).await });
    }

    /// The gateway's metrics.
    pub async fn metrics(&self) -> String {
        self.client.get(format!("http://{}/metrics", self.admin)).send().await.unwrap().text().await.unwrap()
    }

    /// An inventory with the functions that `offer` adds.
    pub async fn inventory(&self, offer: impl FnOnce(Responder) -> Responder) {
        let settings = ResponderSettings {
            subject: "rpc.inventory.*.*".to_owned(),
            queue: "inventory".to_owned(),
            capacity: 64,
            workers: 8,
        };
        let bus = connect(&self.nats, "inventory").await;
        let responder = offer(Responder::new(bus, settings));
        tokio::spawn(responder.run(self.over.clone()));
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// A new session's token.
    pub async fn session(&self) -> String {
        let response =
            self.post("/v1/sessions").header("operator-token", OPERATOR_TOKEN).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        let session: Value = response.json().await.unwrap();
        session["token"].as_str().unwrap().to_owned()
    }
}

/// A client that reads the answer to every request by itself: no redirects, no connections of other clients.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap()
}

pub async fn connect(nats: &Nats, user: &str) -> Bus {
    let settings = Settings {
        url: nats.url(),
        user: user.to_owned(),
        password: user.to_owned(),
        service: user.to_owned(),
        instance: format!("{user}-1"),
    };
    Bus::connect(settings).await.unwrap()
}

/// The problem in an answer that has to be one.
pub async fn problem(response: Response) -> Problem {
    let status = response.status();
    let kind = response.headers().get("content-type").cloned();
    let bytes = response.bytes().await.unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert_eq!(kind.unwrap(), Problem::MEDIA_TYPE, "{status} {text}");
    let problem: Problem = serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(problem.status, status.as_u16(), "{text}");
    assert_eq!(problem.trace_id.is_some(), status.is_server_error(), "{text}");
    problem
}

/// Every user with the rights of a real run and its name as password.
fn accounts() -> String {
    let users: Vec<_> = topology::users()
        .into_iter()
        .map(|user| {
            format!(
                "{{ user: {name}, password: {name}, permissions: {{ publish: {:?}, subscribe: {:?}{} }} }}",
                user.publish,
                user.subscribe,
                if user.allow_responses { ", allow_responses: true" } else { "" },
                name = user.name,
            )
        })
        .collect();
    format!("authorization {{ users: [\n{}\n] }}\n", users.join("\n"))
}
