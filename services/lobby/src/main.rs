//! The process: takes shows, calls people, answers HTTP.

use std::process::ExitCode;

use stampede_bus::{BoxError, DeadLetterKeeper};
use stampede_contracts::topology::{EVT_CATALOG, EVT_FACTS};
use stampede_lobby::{
    app::App,
    config::{Config, IDENTITY},
    events, http,
    store::{MIGRATOR, Store},
};
use stampede_service::{Command, HttpLimits, Node, stack};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let node = Node::start(IDENTITY)?;
    match node.command() {
        Command::Serve => serve(node).await,
        Command::Migrate => {
            node.migrate(&MIGRATOR).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Other(word) => Err(format!("lobby knows serve and migrate, not {word}").into()),
    }
}

async fn serve(node: Node) -> Result<ExitCode, BoxError> {
    let config = Config::from_env(node.env())?;
    let pool = node.database(&MIGRATOR).await?;
    let bus = node.bus().await?;
    let app = App::new(Store::new(pool), bus.clone(), config, node.draining());

    let (on, store, stop) = (bus.clone(), app.store().clone(), node.shutdown());
    node.supervise("take shows", move || events::shows(on.clone(), store.clone(), stop.clone()));
    let (on, store, stop) = (bus.clone(), app.store().clone(), node.shutdown());
    node.supervise("take closed passes", move || events::passes(on.clone(), store.clone(), stop.clone()));
    let (on, copy, stop) = (bus.clone(), app.stock(), node.shutdown());
    node.supervise("follow the stock", move || events::stock(on.clone(), copy.clone(), stop.clone()));
    for (stream, consumer) in [(EVT_CATALOG, "lobby-shows"), (EVT_FACTS, "lobby-passes")] {
        let (keeper, stop) = (DeadLetterKeeper::new(bus.clone(), stream, consumer), node.shutdown());
        node.supervise(format!("dead letters of {consumer}"), move || keeper.clone().run(stop.clone()));
    }
    let (calling, stop) = (app.clone(), node.shutdown());
    node.supervise("call people", move || calling.clone().call_people(stop.clone()));
    let (counting, stop) = (app.clone(), node.shutdown());
    node.supervise("count places", move || counting.clone().count_places(stop.clone()));
    let (forgetting, stop) = (app.clone(), node.shutdown());
    node.supervise("forget old places", move || forgetting.clone().forget(stop.clone()));

    let (listener, bound) = node.listen().await?;
    node.say_heartbeats(&bus, Some(bound));
    Ok(node.serve(Some(listener), stack(http::router(app), HttpLimits::internal())).await)
}
