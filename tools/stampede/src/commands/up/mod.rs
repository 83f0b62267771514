//! `up`: everything, from nothing to tickets that can be bought, kept running until somebody says stop.

mod announce;
mod detach;
mod prepare;
mod start;

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::start::{Ready, TIER_NATS};
use crate::layout::{Layout, PublicPorts};
use crate::process::Fleet;
use crate::process::identity::Identity;
use crate::run_file::{Board, RunFile, Stage};
use crate::secrets::Secrets;
use crate::signals::Signals;
use crate::state::{StateDir, StateLock};
use crate::{cli, control, env, leftovers, progress};

pub(crate) async fn run(options: cli::Up) -> anyhow::Result<ExitCode> {
    let state = options.place.create()?;
    let Some(lock) = state.try_lock()? else { return already_up(&state, &options) };
    let mut signals = Signals::listen()?;
    if options.detach {
        return detach::run(&state, lock, &options, &mut signals).await;
    }
    if options.detached {
        // A session of our own: the terminal may go away.
        rustix::process::setsid().context("cannot leave the terminal")?;
    }
    let began = Instant::now();
    progress::say(format_args!("stampede up, in {}", state.root().display()));
    for (key, value) in env::passed_on() {
        progress::note(&format!("services run with {key}={value} of your environment"));
    }
    leftovers::end(&state).await;
    if options.fresh {
        state.wipe(&lock)?;
    }
    let platform = Platform::new(state, lock, options)?;
    platform.run(&mut signals, began).await
}

/// Everything that is known before the first process starts.
struct Platform {
    state: StateDir,
    _lock: StateLock,
    options: cli::Up,
    layout: Layout,
    secrets: Secrets,
    board: Arc<Board>,
    fleet: Fleet,
}

impl Platform {
    fn new(state: StateDir, lock: StateLock, options: cli::Up) -> anyhow::Result<Self> {
        let public = if options.random_ports { PublicPorts::Random } else { PublicPorts::Known };
        let layout = Layout::plan(&options.replicas, public)?;
        let secrets = Secrets::open(&state)?;
        let own = Identity::own().context("this process cannot find itself")?;
        let board = Arc::new(Board::new(&state, RunFile::new(own, layout.urls()))?);
        let fleet = Fleet::new(Arc::clone(&board))?;
        Ok(Self { state, _lock: lock, options, layout, secrets, board, fleet })
    }

    async fn run(self, signals: &mut Signals, began: Instant) -> anyhow::Result<ExitCode> {
        let shutdown = CancellationToken::new();
        let listener = TcpListener::bind(("127.0.0.1", self.layout.control)).await?;
        let door = control::serve(listener, self.fleet.clone(), &self.state, &self.secrets, shutdown.clone());
        let (ended, served) = tokio::join!(
            async {
                let ended = self.start_and_wait(signals, began).await;
                self.stop(signals).await;
                shutdown.cancel();
                ended
            },
            door
        );
        ended?;
        served?;
        Ok(ExitCode::SUCCESS)
    }

    /// `Ok` when somebody asked us to end, an error when we end by ourselves.
    async fn start_and_wait(&self, signals: &mut Signals, began: Instant) -> anyhow::Result<()> {
        let ready = tokio::select! {
            // Boxed: it holds the future of every part at once.
            ready = Box::pin(self.start()) => ready?,
            name = self.fleet.gave_up() => return Err(gave_up(&name)),
            () = signals.next() => return Ok(()),
        };
        // First the words, then the run file: `--detach` returns as soon as that one says so.
        self.announce(&ready, began);
        self.board.enter(Stage::Ready);
        tokio::select! {
            name = self.fleet.gave_up() => Err(gave_up(&name)),
            () = signals.next() => Ok(()),
        }
    }

    fn announce(&self, ready: &Ready, began: Instant) {
        let urls = self.board.snapshot().urls;
        progress::say(announce::text(&urls, &self.state, ready, &self.options, began.elapsed()));
    }

    /// From the top down: who calls before who is called, services before what keeps their data.
    async fn stop(&self, signals: &mut Signals) {
        let began = Instant::now();
        self.board.enter(Stage::Stopping);
        progress::say("\nstopping; what is under way is finished first (Ctrl-C again: at once)");
        let mut stop = std::pin::pin!(self.fleet.stop());
        loop {
            tokio::select! {
                () = &mut stop => break,
                () = signals.next() => self.fleet.hurry(TIER_NATS),
            }
        }
        // Nothing runs any more, so nothing has to be found by the next `up`.
        let _ = fs::remove_file(self.state.run_file());
        progress::done("stopped", "in order", began);
    }
}

fn gave_up(name: &str) -> anyhow::Error {
    anyhow!("{name} could not be kept running, so everything was stopped")
}

/// Not an error: what was wanted is so.
fn already_up(state: &StateDir, options: &cli::Up) -> anyhow::Result<ExitCode> {
    if options.fresh {
        bail!("already up in {}; run `cargo stampede down` before --fresh", state.root().display());
    }
    match RunFile::read(state)? {
        Some(run) if run.stage == Stage::Ready => {
            let api =
                run.select("gateway").next().map(|_| format!(": {}", run.urls.gateway)).unwrap_or_default();
            progress::say(format_args!("already up (process {}){api}", run.up.pid));
        }
        Some(run) => progress::say(format_args!("already on its way (process {})", run.up.pid)),
        None => progress::say(format_args!(
            "another `stampede up` is getting ready in {}",
            state.root().display()
        )),
    }
    progress::say("see: cargo stampede status");
    Ok(ExitCode::SUCCESS)
}
