#![doc = include_str!("../README.md")]

pub mod app;
pub mod clients;
pub mod config;
pub mod domain;
pub mod http;
pub mod metrics;

use std::process::ExitCode;
use std::time::Duration;

use stampede_bus::{BoxError, Bus, Members};
use stampede_service::Node;

use crate::app::App;
use crate::clients::layout::Layout;
use crate::config::Config;
use crate::http::server::{ConnectionLimits, Server};

/// The services whose replicas are found by heartbeats.
const NEIGHBOURS: [&str; 3] = ["catalog", "lobby", "orders"];
/// How long starting waits for a heartbeat of each of them. Browsing works without orders, so this is a courtesy.
const NEIGHBOURS_WAIT: Duration = Duration::from_secs(3);
const NEIGHBOURS_POLL: Duration = Duration::from_millis(50);

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// When it cannot start: the configuration, messaging, or the address.
pub async fn run(node: Node) -> Result<ExitCode, BoxError> {
    let config = Config::from_env(node.env(), node.settings().environment)?;
    let bus = node.bus().await?;
    let members = Members::new(bus.clone());
    let layout = Layout::default();
    follow(&node, &bus, &members, &layout);

    let app = App::try_new(config, bus.clone(), members, layout, node.draining())?;
    meet_neighbours(&app).await;
    let (listener, address) = node.listen().await?;
    node.say_heartbeats(&bus, Some(address));
    let limits = ConnectionLimits {
        max: node.settings().http_connections_max,
        idle_timeout: node.settings().http_idle_timeout,
        head_timeout: app.times.head,
    };
    let server = Server { listener, limits, metrics: app.metrics.clone(), router: http::router(app)? };
    Ok(node.serve_with(|stop| server.run(stop)).await)
}

/// Keeps the copies of what others say up to date.
fn follow(node: &Node, bus: &Bus, members: &Members, layout: &Layout) {
    let (members, shutdown) = (members.clone(), node.shutdown());
    node.supervise("members", move || members.clone().run(shutdown.clone()));
    let (bus, layout, shutdown) = (bus.clone(), layout.clone(), node.shutdown());
    node.supervise("layout", move || layout.clone().follow(bus.clone(), shutdown.clone()));
}

/// Waits a moment for whoever requests are passed to, so that the first request after the start finds them.
async fn meet_neighbours(app: &App) {
    let everybody = async {
        let mut ticks = tokio::time::interval(NEIGHBOURS_POLL);
        while !NEIGHBOURS.iter().all(|service| app.upstream.has_member(service)) {
            ticks.tick().await;
        }
    };
    if tokio::time::timeout(NEIGHBOURS_WAIT, everybody).await.is_err() {
        tracing::warn!("not all of catalog, lobby and orders are there yet; serving what can be served");
    }
}
