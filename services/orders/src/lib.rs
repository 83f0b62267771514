#![doc = include_str!("../README.md")]

pub mod app;
pub mod clients;
pub mod config;
pub mod domain;
pub mod events;
pub mod http;
pub mod metrics;
pub mod rpc;
pub mod store;
pub mod wakeups;

use std::process::ExitCode;
use std::time::Duration;

use sqlx::migrate::Migrator;
use stampede_bus::{BoxError, Bus, Consumer, ConsumerSettings, DeadLetterKeeper};
use stampede_contracts::topology::EVT_FACTS;
use stampede_idempotency::Fingerprinter;
use stampede_outbox::{Outbox, Relay, RelaySettings};
use stampede_postgres::PgPool;
use stampede_service::{Command, HttpLimits, Identity, Node, stack};

use crate::app::{App, Parts};
use crate::clients::Inventory;
use crate::config::Config;
use crate::domain::Plans;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::wakeups::Wakeups;

/// The name of the service, and of its user in NATS.
pub const SERVICE: &str = "orders";
/// Who this is.
pub const IDENTITY: Identity = Identity {
    service: SERVICE,
    version: env!("CARGO_PKG_VERSION"),
    blueprint: include_str!("../blueprint.toml"),
};
/// The schema of the service's own database.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// Does what the process was started for.
///
/// # Errors
/// When it cannot start: a key is missing, or database or messaging are not there in time.
pub async fn run(node: Node) -> Result<ExitCode, BoxError> {
    match node.command() {
        Command::Serve => serve(node).await,
        Command::Migrate => {
            node.migrate(&MIGRATOR).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Other(word) => Err(format!("orders knows serve and migrate, not {word}").into()),
    }
}

async fn serve(node: Node) -> Result<ExitCode, BoxError> {
    let config = Config::from_env(node.env())?;
    let pool = node.database(&MIGRATOR).await?;
    let bus = node.bus().await?;
    let outbox = Outbox::new(pool.clone(), config.outbox_partitions);
    let app = build(&node, config, &pool, &bus, &outbox)?;
    work(&node, &app, &pool, &bus, outbox);
    let (listener, bound) = node.listen().await?;
    node.say_heartbeats(&bus, Some(bound));
    Ok(node.serve(Some(listener), stack(http::router(app), HttpLimits::internal())).await)
}

fn build(node: &Node, config: Config, pool: &PgPool, bus: &Bus, outbox: &Outbox) -> Result<App, BoxError> {
    Ok(App::new(Parts {
        store: Store::new(pool.clone()),
        reads: Store::new(node.pool("reads")?),
        lookups: Store::new(node.pool("lookups")?),
        outbox: outbox.clone(),
        bus: bus.clone(),
        inventory: Inventory::new(bus.clone(), config.call_timeout),
        wakeups: Wakeups::default(),
        metrics: Metrics::default(),
        plans: Plans::try_new(config.timing.refund)?,
        ticket_key: config.ticket_key,
        fingerprinter: config.fingerprint_key.map(|key| Fingerprinter::new(key.expose().as_bytes())),
        timing: config.timing,
        tasks: node.tasks(),
        shutdown: node.shutdown(),
        draining: node.draining(),
    }))
}

/// Everything that goes on beside requests.
fn work(node: &Node, app: &App, pool: &PgPool, bus: &Bus, outbox: Outbox) {
    let relay = Relay::new(outbox, bus.clone(), RelaySettings::default());
    let stop = node.shutdown();
    node.supervise("relay", move || relay.clone().run(stop.clone()));

    let (wakeups, pool, stop) = (app.wakeups().clone(), pool.clone(), node.shutdown());
    node.supervise("wake-ups", move || wakeups.clone().listen(pool.clone(), stop.clone()));

    let (wakeups, reads, stop) = (app.wakeups().clone(), app.reads().clone(), node.shutdown());
    node.supervise("followers", move || wakeups.clone().look_for_followers(reads.clone(), stop.clone()));

    let (sweeper, stop) = (app.clone(), node.shutdown());
    node.supervise("sweeper", move || sweeper.clone().sweep_until(stop.clone()));

    let (responder, stop) = (rpc::responder(bus.clone(), app.clone()), node.shutdown());
    node.supervise("responder", move || responder.clone().run(stop.clone()));

    for (name, stop) in [("orders-payments", node.shutdown()), ("orders-mails", node.shutdown())] {
        let keeper = DeadLetterKeeper::new(bus.clone(), EVT_FACTS, name);
        node.supervise(format!("dead letters of {name}"), move || keeper.clone().run(stop.clone()));
    }
    let consumer = |name, settings| Consumer::new(bus.clone(), EVT_FACTS, name, settings);

    let payments = consumer("orders-payments", ConsumerSettings::default());
    let (results, stop) = (app.clone(), node.shutdown());
    node.supervise("results of payments", move || {
        let results = results.clone();
        payments.clone().run(stop.clone(), move |batch| events::on_payments(results.clone(), batch))
    });
    // Nobody waits for a line in the timeline.
    let gather = Duration::from_millis(200);
    let mails = consumer("orders-mails", ConsumerSettings { gather, ..ConsumerSettings::default() });
    let (results, stop) = (app.clone(), node.shutdown());
    node.supervise("results of notify", move || {
        let results = results.clone();
        mails.clone().run(stop.clone(), move |batch| events::on_mails(results.clone(), batch))
    });
}
