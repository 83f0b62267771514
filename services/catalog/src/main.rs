//! The process: follows inventory, answers HTTP, publishes shows.

use std::{process::ExitCode, sync::Arc};

use stampede_catalog::{
    app::App,
    config::{IDENTITY, OUTBOX_PARTITIONS},
    events, http,
    store::{MIGRATOR, Store},
};
use stampede_outbox::{Outbox, Relay, RelaySettings};
use stampede_service::{Command, HttpLimits, Node, stack};

use stampede_bus::BoxError;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let node = Node::start(IDENTITY)?;
    match node.command() {
        Command::Serve => serve(node).await,
        Command::Migrate => {
            node.migrate(&MIGRATOR).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Other(word) => Err(format!("catalog knows serve and migrate, not {word}").into()),
    }
}

async fn serve(node: Node) -> Result<ExitCode, BoxError> {
    let pool = node.database(&MIGRATOR).await?;
    let bus = node.bus().await?;
    let outbox = Outbox::new(pool.clone(), OUTBOX_PARTITIONS);
    let app = App::new(Store::new(pool, outbox.clone()));

    let relay = Relay::new(outbox, bus.clone(), RelaySettings::default());
    let stop = node.shutdown();
    node.supervise("relay", move || relay.clone().run(stop.clone()));

    let (copies, stop, on) = (Arc::clone(&app.copies), node.shutdown(), bus.clone());
    node.supervise("follow inventory", move || events::follow(on.clone(), Arc::clone(&copies), stop.clone()));

    let (copies, stop) = (Arc::clone(&app.copies), node.shutdown());
    let gate = node.readiness().gate("copy of availability");
    node.supervise("watch the copy", move || {
        events::watch_copy(Arc::clone(&copies), gate.clone(), stop.clone())
    });

    let (store, stop, on) = (app.store.clone(), node.shutdown(), bus.clone());
    node.supervise("watch the stream", move || {
        events::watch_generation(on.clone(), store.clone(), stop.clone())
    });

    let (store, stop) = (app.store.clone(), node.shutdown());
    node.supervise("publish again", move || events::publish_again(store.clone(), stop.clone()));

    let (listener, bound) = node.listen().await?;
    node.say_heartbeats(&bus, Some(bound));
    Ok(node.serve(Some(listener), stack(http::router(app), HttpLimits::internal())).await)
}
