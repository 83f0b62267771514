//! Nodes with real listeners, a real database and real signals.

#![expect(clippy::unwrap_used, reason = "the helpers of a test end it as the test itself would")]

mod admin;
mod connections;
mod database;
mod drain;
mod problems;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use stampede_service::{Command, Env, Identity, Node};
use stampede_testkit::eventually;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A service with a database and one callee.
const IDENTITY: Identity = Identity { service: "orders", version: "1.2.3", blueprint: BLUEPRINT };
const BLUEPRINT: &str = r#"
service = "orders"
kind = "logic"

[database]
pools = { requests = 8, reads = 2 }
wait_ms = 2_000
statement_ms = 5_000
lock_ms = 2_000
tables = {}

[calls.inventory]
via = "rpc"
functions = { attach = "later" }

[calls.inventory.policy]
deadline_ms = 1_000
attempt_ms = 500
breaker = { percent = 50, min_calls = 20, window_ms = 10_000, open_ms = 200, open_max_ms = 5_000, probes = 4 }
bulkhead = { places = 7, waiting_max = 64, wait_ms = 100 }
"#;

/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn node(pairs: &[(&str, &str)]) -> Node {
    let common = [("NATS_PASSWORD", "unused"), ("RUST_LOG", "error")];
    let env = Env::from_pairs(common.into_iter().chain(pairs.iter().copied()));
    Node::with_env(IDENTITY, env, Command::Serve).unwrap()
}

/// A node that serves.
struct Served {
    http: SocketAddr,
    admin: SocketAddr,
    draining: CancellationToken,
    exit: JoinHandle<ExitCode>,
    client: reqwest::Client,
}

impl Served {
    async fn start(node: Node, router: Router) -> Self {
        let admin = node.admin_address().unwrap();
        let draining = node.draining();
        let (listener, http) = node.listen().await.unwrap();
        let exit = tokio::spawn(node.serve(Some(listener), router));
        let served = Self { http, admin, draining, exit, client: reqwest::Client::new() };
        eventually(PATIENCE, async || served.admin("/startupz").await.status() == 200).await;
        served
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    async fn admin(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("http://{}{path}", self.admin)).send().await.unwrap()
    }

    /// Ends it and gives back how.
    async fn stop(self) -> ExitCode {
        self.draining.cancel();
        self.exit().await
    }

    async fn exit(self) -> ExitCode {
        tokio::time::timeout(PATIENCE, self.exit).await.unwrap().unwrap()
    }
}
