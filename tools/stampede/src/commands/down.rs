//! `down`: asks the `up` of a state folder to end, and waits until it has.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use rustix::process::Signal;

use crate::leftovers;
use crate::progress;
use crate::run_file::RunFile;
use crate::state::StateDir;

/// Longer than all services together may take to drain.
const DOWN_LIMIT: Duration = Duration::from_secs(180);

pub(crate) async fn run(state: &StateDir) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let run = RunFile::read(state)?;
    match run {
        Some(run) if run.up.is_alive() => {
            run.up.signal(Signal::TERM);
            if !run.up.ended_within(DOWN_LIMIT).await {
                bail!(
                    "`up` (process {}) has not ended after {DOWN_LIMIT:?}; see {}",
                    run.up.pid,
                    state.logs().display()
                );
            }
            progress::done("down", state.root().display(), began);
        }
        _ => {
            let Some(_lock) = state.try_lock()? else { bail!("an `up` is about to begin; try again") };
            // The last one was killed, perhaps; what it left behind goes too.
            leftovers::end(state).await;
            progress::say(format_args!("nothing is up in {}", state.root().display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
