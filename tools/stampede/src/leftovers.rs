//! What an `up` left running that was killed before it could stop anything. On Linux the system has told those
//! processes to end already; this makes sure of it, before their ports and data are used again.

use std::fs;

use rustix::process::Signal;

use crate::process::identity::KILL;
use crate::progress;
use crate::run_file::RunFile;
use crate::services::STOP_LIMIT;
use crate::state::StateDir;

/// Ends exactly the processes the run file names, recognised by number and start, in reverse order of their start;
/// then deletes the run file. The caller holds the lock, or knows that nobody does.
pub(crate) async fn end(state: &StateDir) {
    let run = match RunFile::read(state) {
        Ok(Some(run)) => run,
        Ok(None) => return,
        Err(error) => {
            return progress::note(&format!(
                "{error:#}; if something of an older `up` still runs, end it by hand"
            ));
        }
    };
    for entry in run.processes.iter().rev() {
        let Some(identity) = entry.identity.as_ref().filter(|identity| identity.is_alive()) else { continue };
        progress::note(&format!(
            "ending {} (process {}), left over from an earlier run",
            entry.name, identity.pid
        ));
        identity.signal(Signal::from_named_raw(entry.stop_signal).unwrap_or(Signal::TERM));
        if !identity.ended_within(STOP_LIMIT).await {
            identity.signal(KILL);
            identity.ended_within(STOP_LIMIT).await;
        }
    }
    // It may be gone already; then there is nothing to delete.
    let _ = fs::remove_file(state.run_file());
}
