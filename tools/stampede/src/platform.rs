//! A platform of one's own, for tests: the real thing, started as a person would, in a throw-away folder and on free
//! ports.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use rustix::process::Signal;

use crate::control::{self, Keep};
use crate::infra::locate;
use crate::process::identity;
use crate::process::spec::tail;
use crate::run_file::{RunFile, Stage};
use crate::scratch::Scratch;
use crate::secrets::Secrets;
use crate::state::StateDir;

/// From the start until tickets can be bought, on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(180);
const READY_POLL: Duration = Duration::from_millis(25);
const STOP_LIMIT: Duration = Duration::from_secs(120);
const TAIL_LINES: usize = 60;

/// How to start a platform.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the built binaries lie; absent: where cargo puts them for the test that asks.
    pub binaries: Option<PathBuf>,
    /// As `--replicas`: `orders=2,inventory=3`.
    pub replicas: Option<String>,
    /// As `--set`: `orders.DRAIN_TIMEOUT_MS=500`.
    pub settings: Vec<String>,
    /// Make the three shows of `up`.
    pub seed: Seed,
    /// All services, or only what they stand on.
    pub extent: Extent,
}

/// Which shows there are to begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seed {
    /// The three of `up`.
    #[default]
    Shows,
    /// None; the test makes its own.
    Nothing,
}

/// How much is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// Everything.
    #[default]
    Platform,
    /// Postgres, NATS and the mail sink.
    Infrastructure,
}

/// A running platform. Dropping it stops it, in order, and deletes its folder.
#[derive(Debug)]
pub struct Platform {
    /// Base URL of the public API.
    pub gateway_url: String,
    /// Base URL of the payment provider's card tokens.
    pub tokens_url: String,
    /// Base URL of the payment provider's knobs and ledger.
    pub psp_admin_url: String,
    /// Its folder.
    pub state: StateDir,
    up: Up,
    // After the process in this list, so that the folder goes last.
    _scratch: Scratch,
}

/// The `stampede up` process. A thread of its own starts it and waits for it: the system ties the child's life to the
/// thread that made it, and a test's thread may end before its platform.
#[derive(Debug)]
struct Up {
    pid: u32,
    ended: Receiver<std::io::Result<ExitStatus>>,
    status: Option<ExitStatus>,
}

impl Platform {
    /// Starts a platform and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; the error carries the end of what it said.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let scratch = Scratch::new("platform")?;
        let state = StateDir::create(scratch.path())?;
        let mut up = Up::spawn(command(&options, &state)?)?;
        let run = up.until_ready(&state).await?;
        Ok(Self {
            gateway_url: run.urls.gateway,
            tokens_url: run.urls.tokens,
            psp_admin_url: run.urls.psp_admin,
            state,
            up,
            _scratch: scratch,
        })
    }

    /// Everything about it, as it is now.
    ///
    /// # Errors
    /// When it does not run any more.
    pub fn run_file(&self) -> anyhow::Result<RunFile> {
        RunFile::running(&self.state)
    }

    /// Its secrets: the operator's token, the passwords.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn secrets(&self) -> anyhow::Result<Secrets> {
        Secrets::open(&self.state)
    }

    /// Stops and starts a process (`orders-2`) or all of a kind (`orders`), and waits until they are ready.
    ///
    /// # Errors
    /// When there is no such process, or it does not get ready again.
    pub async fn restart(&self, name: &str) -> anyhow::Result<()> {
        control::ask_restart(&self.state, name, Keep::Everything).await.map(drop)
    }

    /// Restarts NATS and deletes all of JetStream while it is down.
    ///
    /// # Errors
    /// When NATS does not get ready again.
    pub async fn lose_jetstream(&self) -> anyhow::Result<()> {
        control::ask_restart(&self.state, "nats", Keep::Nothing).await.map(drop)
    }

    /// Stops everything in order.
    ///
    /// # Errors
    /// When it does not end, or ends with an error.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let platform = tokio::task::spawn_blocking(move || self.up.stop().map(|status| (self, status)));
        let (_platform, status) = platform.await??;
        ensure!(status.success(), "`up` ended with {status}");
        Ok(())
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        // A test that failed has said so already; here is nobody to tell.
        let _ = self.up.stop();
        // The data may lie elsewhere, see `infra::postgres`.
        if let Ok(Some(lock)) = self.state.try_lock() {
            let _ = self.state.wipe(&lock);
        }
    }
}

impl Up {
    fn spawn(mut command: Command) -> anyhow::Result<Self> {
        let (tell_pid, pid) = sync_channel(1);
        let (tell_end, ended) = sync_channel(1);
        thread::Builder::new().name("stampede up".to_owned()).spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return drop(tell_pid.send(Err(error))),
            };
            let _ = tell_pid.send(Ok(child.id()));
            let _ = tell_end.send(child.wait());
        })?;
        let pid =
            pid.recv().context("the thread that starts `up` ended")?.context("`up` cannot be started")?;
        Ok(Self { pid, ended, status: None })
    }

    async fn until_ready(&mut self, state: &StateDir) -> anyhow::Result<RunFile> {
        let began = Instant::now();
        loop {
            if let Ok(ended) = self.ended.try_recv() {
                let status = *self.status.insert(ended?);
                bail!("`up` ended ({status}) before it was ready:\n{}", tail(&state.output(), 0, TAIL_LINES));
            }
            if let Some(run) = RunFile::read(state)?
                && run.stage == Stage::Ready
            {
                return Ok(run);
            }
            if began.elapsed() > READY_LIMIT {
                let _ = self.stop();
                bail!("`up` is not ready after {READY_LIMIT:?}:\n{}", tail(&state.output(), 0, TAIL_LINES));
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    /// Asks it to end and waits until it has.
    fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        identity::send(self.pid, Signal::TERM);
        let status = match self.ended.recv_timeout(STOP_LIMIT) {
            Ok(status) => status?,
            Err(RecvTimeoutError::Timeout) => {
                identity::send(self.pid, identity::KILL);
                self.ended.recv().context("the thread that waits for `up` ended")??
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the thread that waits for `up` ended"),
        };
        self.status = Some(status);
        Ok(status)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn command(options: &Options, state: &StateDir) -> anyhow::Result<Command> {
    let binaries = match &options.binaries {
        Some(folder) => folder.clone(),
        None => beside_the_test()?,
    };
    let program = binaries.join("stampede");
    ensure!(
        program.is_file(),
        "{} is not built; run tests with `cargo stampede test`, or build first: cargo build --workspace --bins",
        program.display()
    );
    let mut command = match locate::setpriv() {
        // A test runner that kills a test means all of it.
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM", "--"]).arg(&program);
            command
        }
        None => Command::new(&program),
    };
    command.args(["up", "--no-build", "--random-ports", "--throw-away", "--state"]).arg(state.root());
    command.arg("--binaries").arg(&binaries);
    if let Some(replicas) = &options.replicas {
        command.arg("--replicas").arg(replicas);
    }
    for setting in &options.settings {
        command.arg("--set").arg(setting);
    }
    if options.seed == Seed::Nothing {
        command.arg("--no-seed");
    }
    if options.extent == Extent::Infrastructure {
        command.arg("--infra");
    }
    let output = std::fs::File::create(state.output())?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    Ok(command)
}

/// Tests lie in `target/<profile>/deps`, binaries one above.
fn beside_the_test() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().filter(|folder| folder.ends_with("deps")).and_then(Path::parent);
    folder.map(Path::to_path_buf).ok_or_else(|| anyhow!("{} is no test of cargo's", test.display()))
}
