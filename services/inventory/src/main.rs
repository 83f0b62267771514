//! The process: answers for seats, lays out shows, publishes blocks, ends holds whose time is over.

use std::process::ExitCode;

use stampede_inventory::app;
use stampede_service::{Command, Node};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let node = Node::start(app::IDENTITY)?;
    match node.command() {
        Command::Serve => {
            app::start(&node, None).await?;
            Ok(node.idle().await)
        }
        Command::Migrate => {
            node.migrate(&app::MIGRATOR).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Other(word) => Err(format!("inventory knows serve and migrate, not {word}").into()),
    }
}
