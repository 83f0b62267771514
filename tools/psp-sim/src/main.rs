//! The process: three listeners and a sender of webhooks.

use std::process::ExitCode;

use stampede_psp_sim::app::{self, MIGRATOR};
use stampede_psp_sim::config::Config;
use stampede_service::{Command, Node};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let node = Node::start_without_messaging(app::IDENTITY)?;
    match node.command() {
        Command::Serve => serve(node).await,
        Command::Migrate => {
            node.migrate(&MIGRATOR).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Other(word) => Err(format!("psp-sim knows serve and migrate, not {word}").into()),
    }
}

async fn serve(node: Node) -> Result<ExitCode, BoxError> {
    let config = Config::from_env(node.env())?;
    let pool = node.database(&MIGRATOR).await?;
    let app = app::build(pool, &config, node.tasks())?;

    let (tokens, bound) = node.listen_on(config.tokens_listen).await?;
    let tokens_url = config.tokens_url.unwrap_or_else(|| format!("http://{bound}/tokens"));
    node.serve_beside(tokens, app::tokens(tokens_url)?);
    node.serve_on_admin(app.knobs);

    if let Some(sender) = app.sender {
        let shutdown = node.shutdown();
        node.supervise("webhooks", move || {
            let (sender, shutdown) = (sender.clone(), shutdown.clone());
            async move { Ok(sender.run(shutdown).await?) }
        });
    }
    Ok(node.serve(None, app.api).await)
}
