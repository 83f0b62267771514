//! The service put together.

use std::sync::Arc;

use sqlx::migrate::Migrator;
use stampede_bus::{BoxError, DeadLetterKeeper};
use stampede_contracts::topology::EVT_CATALOG;
use stampede_outbox::{Outbox, Relay, RelaySettings};
use stampede_postgres::{DatabaseClock, PgPool};
use stampede_service::{Identity, Node};

use crate::config::Config;
use crate::inventory::{Clock, Inventory, Rules};
use crate::leader::{Duty, lead};
use crate::store::Store;
use crate::{events, publisher, rpc, sweeper};

/// Who this is.
pub const IDENTITY: Identity = Identity {
    service: "inventory",
    version: env!("CARGO_PKG_VERSION"),
    blueprint: include_str!("../blueprint.toml"),
};
/// The schema.
pub static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// Partitions of the outbox. All replicas have to agree.
const OUTBOX_PARTITIONS: u16 = 4;

/// Connects, and starts everything this service does as children of the node. Without a `clock` the database's is taken:
/// what is promised by one replica and ended by another is judged by the same time.
///
/// # Errors
/// When a key is missing, or database or messaging cannot be reached in time.
pub async fn start(node: &Node, clock: Option<Clock>) -> Result<Inventory, BoxError> {
    let config = Config::from_env(node.env())?;
    let pool = node.database(&MIGRATOR).await?;
    let bus = node.bus().await?;
    let clock = match clock {
        Some(clock) => clock,
        None => follow_clock(node, &pool).await?,
    };
    let outbox = Outbox::new(pool.clone(), OUTBOX_PARTITIONS);
    let rules = Rules {
        hold: config.hold,
        seats_max: config.seats_max,
        pass_key: config.pass_key,
        history: config.history,
        state_again_every: config.state_again_every,
    };
    let inventory = Inventory::new(Store::new(pool.clone(), outbox.clone()), rules, clock)?;

    // The first to end: other replicas answer while what was begun here is finished.
    let responder = rpc::responder(&inventory, bus.clone(), config.workers, config.queue);
    let (draining, stop) = (node.draining(), node.shutdown());
    node.supervise("responder", move || {
        let (responder, draining, stop) = (responder.clone(), draining.clone(), stop.clone());
        async move {
            responder.run(draining).await?;
            stop.cancelled().await;
            Ok(())
        }
    });

    let (service, on, stop) = (inventory.clone(), bus.clone(), node.shutdown());
    node.supervise("shows", move || events::follow_shows(service.clone(), on.clone(), stop.clone()));

    let (keeper, stop) = (DeadLetterKeeper::new(bus.clone(), EVT_CATALOG, events::CONSUMER), node.shutdown());
    node.supervise("dead letters", move || keeper.clone().run(stop.clone()));

    let (relay, stop) = (Relay::new(outbox, bus.clone(), RelaySettings::default()), node.shutdown());
    node.supervise("relay", move || relay.clone().run(stop.clone()));

    let (service, on, stop) = (inventory.clone(), bus.clone(), node.shutdown());
    node.supervise("publisher", move || {
        let (service, on, stop) = (service.clone(), on.clone(), stop.clone());
        async move {
            let publishing =
                lead(service.store().pool(), Duty::Publish, &stop, || publisher::publish(&service, &on));
            Box::pin(publishing).await;
            Ok(())
        }
    });

    let (service, stop) = (inventory.clone(), node.shutdown());
    node.supervise("sweeper", move || {
        let (service, stop) = (service.clone(), stop.clone());
        async move {
            lead(service.store().pool(), Duty::Sweep, &stop, || sweeper::sweep(&service)).await;
            Ok(())
        }
    });

    node.say_heartbeats(&bus, None);
    Ok(inventory)
}

async fn follow_clock(node: &Node, pool: &PgPool) -> Result<Clock, BoxError> {
    let clock = DatabaseClock::read(pool).await?;
    let (followed, pool, stop) = (clock.clone(), pool.clone(), node.shutdown());
    node.supervise("clock", move || followed.clone().follow(pool.clone(), stop.clone()));
    Ok(Arc::new(move || clock.now()))
}
