//! The process: takes commands, drives them at the provider, tells of their outcome.

use std::future::Future;
use std::io::{self, Write as _};
use std::process::ExitCode;

use stampede_bus::BoxError;
use stampede_contracts::Timestamp;
use stampede_payments::app::App;
use stampede_payments::clients::Provider;
use stampede_payments::config::{Config, IDENTITY, ReconcileConfig};
use stampede_payments::reconcile::reconcile;
use stampede_payments::store::MIGRATOR;
use stampede_service::{Command, Node};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let node = Node::start(IDENTITY)?;
    match node.command() {
        Command::Serve => serve(node).await,
        Command::Migrate => {
            node.migrate(&MIGRATOR).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Other(word) if word == "reconcile" => compare_books(&node).await,
        Command::Other(word) => {
            Err(format!("payments knows serve, migrate and reconcile, not {word}").into())
        }
    }
}

async fn serve(node: Node) -> Result<ExitCode, BoxError> {
    let config = Config::from_env(node.env())?;
    let pool = node.database(&MIGRATOR).await?;
    let bus = node.bus().await?;
    let provider = node.destination("provider")?;
    let app = App::build(&config, &node.settings().instance, pool, bus.clone(), &provider)?;
    app.begin().await?;

    supervise(&node, "outbox", &app, App::publish);
    supervise(&node, "workers", &app, App::work);
    supervise(&node, "due operations", &app, App::fill);
    supervise(&node, "commands", &app, App::take);
    supervise(&node, "dead letters", &app, App::keep_dead_letters);
    supervise(&node, "housekeeping", &app, App::keep_house);

    // The one listener is for the provider, so heartbeats name none: nobody of ours calls it.
    node.say_heartbeats(&bus, None);
    let (listener, address) = node.listen_on(config.webhooks.listen).await?;
    tracing::info!(%address, "listening for webhooks");
    Ok(node.serve(Some(listener), app.router()?).await)
}

fn supervise<F, Fut>(node: &Node, name: &str, app: &App, part: F)
where
    F: Fn(App, CancellationToken) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let (app, shutdown) = (app.clone(), node.shutdown());
    node.supervise(name, move || part(app.clone(), shutdown.clone()));
}

/// Prints the report; ends with 1 when the books differ.
async fn compare_books(node: &Node) -> Result<ExitCode, BoxError> {
    let config = ReconcileConfig::from_env(node.env())?;
    let pool = node.database(&MIGRATOR).await?;
    let provider = Provider::try_new(&config.provider, node.destination("provider")?.promising())?;
    let report = reconcile(&pool, &provider, config.min_age, Timestamp::now()).await?;
    // Not println!, which panics where standard output is closed.
    writeln!(io::stdout(), "{report}")?;
    Ok(if report.agrees() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
