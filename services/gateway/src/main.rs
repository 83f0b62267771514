//! The process `stampede-gateway`.

use std::process::ExitCode;

use stampede_bus::BoxError;
use stampede_service::{Command, Node};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let node = Node::start(stampede_gateway::IDENTITY)?;
    match node.command() {
        Command::Serve => stampede_gateway::run(node).await,
        // There is no database to migrate; whoever asks every service for it is not refused.
        Command::Migrate => Ok(ExitCode::SUCCESS),
        Command::Other(word) => {
            Err(format!("the gateway knows no {word}; it takes nothing or `serve`").into())
        }
    }
}
