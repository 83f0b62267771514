//! The process. What it is made of is said in `lib.rs`.

use std::process::ExitCode;

use stampede_bus::BoxError;
use stampede_notify::config::SERVICE;
use stampede_service::Node;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let node = Node::start(SERVICE, env!("CARGO_PKG_VERSION"))?;
    stampede_notify::run(node).await
}
