//! `restart`: through the running `up`, which alone may stop and start its processes.

use std::process::ExitCode;

use crate::control::{self, Keep};
use crate::progress;
use crate::state::StateDir;

pub(crate) async fn run(state: &StateDir, name: &str, keep: Keep) -> anyhow::Result<ExitCode> {
    let names = control::ask_restart(state, name, keep).await?;
    progress::say(format_args!("restarted and ready: {}", names.join(", ")));
    Ok(ExitCode::SUCCESS)
}
