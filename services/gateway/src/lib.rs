#![doc = include_str!("../README.md")]

pub mod app;
pub mod clients;
pub mod config;
pub mod domain;
pub mod http;
pub mod metrics;

use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

use stampede_bus::{BoxError, Bus, Members};
use stampede_service::{Gate, Identity, Node};
use tokio_util::sync::CancellationToken;

use crate::app::{App, NEIGHBOURS};
use crate::clients::layout::Layout;
use crate::config::Config;

/// Who this is.
pub const IDENTITY: Identity = Identity {
    service: "gateway",
    version: env!("CARGO_PKG_VERSION"),
    blueprint: include_str!("../blueprint.toml"),
};
/// How long a new gateway is not ready for want of a heartbeat of each of them.
const NEIGHBOURS_WAIT: Duration = Duration::from_secs(3);
/// How often the number of gateways is looked at; a heartbeat comes once a second.
const QUOTAS_INTERVAL: Duration = Duration::from_millis(500);
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

    let app = App::try_new(config, bus.clone(), &members, &node, layout)?;
    let (gateways, shutdown) = (app.clone(), node.shutdown());
    node.supervise("quotas", move || share_quotas(gateways.clone(), members.clone(), shutdown.clone()));
    let gate = node.readiness().gate("neighbours");
    node.tasks().spawn(meet_neighbours(app.clone(), gate));
    let (listener, address) = node.listen().await?;
    node.say_heartbeats(&bus, Some(address));
    let proxies = app.proxies.trusted.clone();
    let server =
        node.server(listener, http::router(app)?).behind(move |peer| proxies.contains(peer.to_canonical()));
    Ok(node.serve_with(|stop| server.run(stop)).await)
}

/// Keeps the copies of what others say up to date.
fn follow(node: &Node, bus: &Bus, members: &Members, layout: &Layout) {
    let (members, shutdown) = (members.clone(), node.shutdown());
    node.supervise("members", move || members.clone().run(shutdown.clone()));
    let (bus, layout, shutdown) = (bus.clone(), layout.clone(), node.shutdown());
    node.supervise("layout", move || layout.clone().follow(bus.clone(), shutdown.clone()));
}

/// Keeps the quotas of clients shared by all gateways that take requests.
async fn share_quotas(app: App, members: Members, shutdown: CancellationToken) -> Result<(), BoxError> {
    let mut ticks = tokio::time::interval(QUOTAS_INTERVAL);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let gateways = members.all("gateway").iter().filter(|member| member.ready).count();
        app.limits
            .share_among(u32::try_from(gateways).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN));
    }
    Ok(())
}

/// Opens the gate when all of them have been heard, so that the first request after the start finds them; or after a
/// moment, because what does not need the missing ones can be served.
async fn meet_neighbours(app: App, gate: Gate) {
    let everybody = async {
        let mut ticks = tokio::time::interval(NEIGHBOURS_POLL);
        while !NEIGHBOURS.iter().all(|service| app.upstream.has_member(service)) {
            ticks.tick().await;
        }
    };
    if tokio::time::timeout(NEIGHBOURS_WAIT, everybody).await.is_err() {
        tracing::warn!("not all of catalog, lobby and orders are there yet; serving what can be served");
    }
    gate.open();
}
