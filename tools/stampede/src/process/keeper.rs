//! One process, kept running: started, asked until it is ready, started again with back-off when it dies, stopped
//! when told. When it dies too often the keeper gives up and says so; what happens then is the fleet's business.

use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use stampede_supervisor::{Decision, RestartPolicy, Restarts};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::identity::{self, Identity};
use super::spec::Spec;
use crate::progress;
use crate::run_file::{Board, Phase};

/// Deaths within [`DEATHS_WITHIN`] that are answered with a new start; one more and we give up.
pub(crate) const RESTARTS_MAX: u32 = 5;
pub(crate) const DEATHS_WITHIN: Duration = Duration::from_secs(30);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often a process that is not ready yet is asked.
const PROBE_EVERY: Duration = Duration::from_millis(25);
/// Lines of a dead process's log that are shown.
const TAIL_LINES: usize = 12;

/// What a keeper can be asked for.
#[derive(Debug)]
pub(crate) enum Request {
    /// Stop the process, empty a folder it kept data in, start it. Answered once it is stopped and on its way up.
    Restart { empty: Option<PathBuf>, stopped: oneshot::Sender<()> },
    /// Stop the process for good. A keeper whose requests end does the same.
    Stop,
}

/// How often a process may die before we give up.
pub(crate) fn restart_policy() -> anyhow::Result<RestartPolicy> {
    Ok(RestartPolicy::try_new(RESTARTS_MAX, DEATHS_WITHIN, BACKOFF_MIN, BACKOFF_MAX)?)
}

/// See the module.
pub(crate) struct Keeper {
    pub(crate) spec: Spec,
    pub(crate) board: Arc<Board>,
    pub(crate) restarts: Restarts,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) phase: watch::Sender<Phase>,
    /// Length of the log when the process was started last.
    pub(crate) log_before: u64,
}

/// Why one run of the process is over.
enum End {
    Died(String),
    Restart,
    Stop,
}

impl Keeper {
    /// Keeps the process until it is stopped or dies too often; says which.
    pub(crate) async fn run(mut self) -> Phase {
        loop {
            let end = match self.one_run().await {
                End::Died(how) => match self.restarts.on_exit(Instant::now()) {
                    Decision::After(pause) => self.pause(&how, pause).await,
                    Decision::GiveUp => return self.give_up(&how),
                },
                end => end,
            };
            if matches!(end, End::Stop) {
                return self.enter(Phase::Stopped);
            }
        }
    }

    async fn one_run(&mut self) -> End {
        self.log_before = self.spec.log_length();
        let mut child = match self.spec.spawn() {
            Ok(child) => child,
            Err(error) => return End::Died(format!("cannot be started: {error}")),
        };
        self.board.update(&self.spec.name, |entry| entry.identity = child.id().and_then(Identity::of));
        self.enter(Phase::Starting);
        let mut ready = false;
        loop {
            tokio::select! {
                status = child.wait() => return End::Died(describe(status)),
                request = self.requests.recv() => return self.obey(request, &mut child).await,
                () = until_ready(&self.spec), if !ready => {
                    ready = true;
                    self.enter(Phase::Ready);
                }
            }
        }
    }

    async fn obey(&mut self, request: Option<Request>, child: &mut Child) -> End {
        self.enter(Phase::Stopping);
        let took = stop(&self.spec, child).await;
        if let Stopped::Killed = took {
            let limit = self.spec.stop_limit;
            progress::note(&format!("{} did not end within {limit:?} and was killed", self.spec.name));
        }
        self.board.update(&self.spec.name, |entry| entry.identity = None);
        self.turn(request)
    }

    /// What a request means once the process is down.
    fn turn(&mut self, request: Option<Request>) -> End {
        let Some(Request::Restart { empty, stopped }) = request else { return End::Stop };
        if let Some(folder) = empty
            && let Err(error) = fs::remove_dir_all(&folder)
        {
            progress::note(&format!("cannot empty {}: {error}", folder.display()));
        }
        self.enter(Phase::Starting);
        // Whoever asked may have gone away; the restart goes on all the same.
        let _ = stopped.send(());
        End::Restart
    }

    async fn pause(&mut self, how: &str, pause: Duration) -> End {
        progress::note(&format!(
            "{} {how}; it is started again in {} ms\n{}",
            self.spec.name,
            pause.as_millis(),
            self.spec.log_tail(self.log_before, TAIL_LINES)
        ));
        self.board.update(&self.spec.name, |entry| {
            entry.identity = None;
            entry.restarts += 1;
        });
        self.enter(Phase::Pausing);
        tokio::select! {
            () = tokio::time::sleep(pause) => End::Restart,
            request = self.requests.recv() => self.turn(request),
        }
    }

    fn give_up(&self, how: &str) -> Phase {
        progress::note(&format!(
            "{} {how}, more than {RESTARTS_MAX} times in {} s; giving up. The end of {}:\n{}",
            self.spec.name,
            DEATHS_WITHIN.as_secs(),
            self.spec.log.display(),
            self.spec.log_tail(self.log_before, TAIL_LINES)
        ));
        self.board.update(&self.spec.name, |entry| entry.identity = None);
        self.enter(Phase::GaveUp)
    }

    fn enter(&self, phase: Phase) -> Phase {
        self.board.update(&self.spec.name, |entry| entry.phase = phase);
        self.phase.send_replace(phase);
        phase
    }
}

enum Stopped {
    ByItself,
    Killed,
}

async fn stop(spec: &Spec, child: &mut Child) -> Stopped {
    // `id` is `None` once the end was noticed, so the number cannot be somebody else's.
    if let Some(pid) = child.id() {
        identity::send(pid, spec.stop_signal);
    }
    match tokio::time::timeout(spec.stop_limit, child.wait()).await {
        Ok(_) => Stopped::ByItself,
        Err(_) => {
            // Kills and waits; fails only when it has ended in this very moment.
            let _ = child.kill().await;
            Stopped::Killed
        }
    }
}

async fn until_ready(spec: &Spec) {
    while spec.probe.check().await.is_err() {
        tokio::time::sleep(PROBE_EVERY).await;
    }
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("ended ({status})"),
        Err(error) => format!("cannot be watched: {error}"),
    }
}
