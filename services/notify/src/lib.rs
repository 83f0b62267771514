//! Tickets by e-mail. See the README beside this crate.

pub mod app;
pub mod clients;
pub mod config;
pub mod domain;
pub mod events;
pub mod store;

use std::{process::ExitCode, sync::Arc};

use stampede_bus::{BoxError, DeadLetterKeeper};
use stampede_contracts::topology::CMD_NOTIFY;
use stampede_outbox::{Outbox, Relay, RelaySettings};
use stampede_service::{Command, Node};
use tokio::sync::Notify;

use crate::{
    app::Worker,
    clients::Mailer,
    config::{Config, OUTBOX_PARTITIONS},
    store::{MIGRATOR, Store},
};

/// Does what the process was started for.
///
/// # Errors
/// When it cannot start: a key is wrong, or database or messaging are not there in time.
pub async fn run(node: Node) -> Result<ExitCode, BoxError> {
    match node.command() {
        Command::Serve => serve(node).await,
        Command::Migrate => {
            node.migrate(&MIGRATOR).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Other(word) => Err(format!("notify knows serve and migrate, not {word}").into()),
    }
}

async fn serve(node: Node) -> Result<ExitCode, BoxError> {
    let config = Config::from_env(node.env())?;
    let mailer = Mailer::try_new(&config, node.destination("smtp")?.promising())?;
    let pool = node.database(&MIGRATOR).await?;
    let bus = node.bus().await?;
    let outbox = Outbox::new(pool.clone(), OUTBOX_PARTITIONS);
    let store = Store::new(pool, outbox.clone(), &node.settings().instance);
    let wake = Arc::new(Notify::new());

    let relay = Relay::new(outbox, bus.clone(), RelaySettings::default());
    let stop = node.shutdown();
    node.supervise("relay", move || relay.clone().run(stop.clone()));

    let (on, into, waking, stop) = (bus.clone(), store.clone(), Arc::clone(&wake), node.shutdown());
    node.supervise("take commands", move || {
        events::take(on.clone(), into.clone(), Arc::clone(&waking), stop.clone())
    });

    let (keeper, stop) = (DeadLetterKeeper::new(bus.clone(), CMD_NOTIFY, "notify"), node.shutdown());
    node.supervise("dead letters", move || keeper.clone().run(stop.clone()));

    let (worker, stop) = (Worker::try_new(store, bus.clone(), mailer, config)?, node.shutdown());
    node.supervise("send mails", move || worker.clone().run(Arc::clone(&wake), stop.clone()));

    node.say_heartbeats(&bus, None);
    Ok(node.idle().await)
}
