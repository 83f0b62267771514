//! The process. What it is made of is said in `lib.rs`.

use std::process::ExitCode;

use stampede_bus::BoxError;
use stampede_orders::IDENTITY;
use stampede_service::Node;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let node = Node::start(IDENTITY)?;
    stampede_orders::run(node).await
}
