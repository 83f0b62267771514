//! `test`: everything that must be green. Tests get a Postgres and a NATS program of their own, on free ports and in
//! a throw-away folder, so that they disturb no running platform and none disturbs them.

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use tokio::process::Command;

use crate::cargo::cargo;
use crate::infra::postgres::{self, Durability, Log, Programs, Tuning};
use crate::infra::{locate, nats};
use crate::ports::Ports;
use crate::process::Fleet;
use crate::process::identity::{self, Identity};
use crate::progress;
use crate::run_file::{Board, RunFile, Urls};
use crate::scratch::Scratch;
use crate::secrets::Secrets;
use crate::signals::Signals;
use crate::state::{self, StateDir};

/// Many tests run at once, each with a database and a pool of its own.
const CONNECTIONS_MAX: u32 = 400;
/// A test runner that was told to end cleans up behind its tests first.
const INTERRUPT_LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn run(filter: &[String]) -> anyhow::Result<ExitCode> {
    let workspace = state::workspace().context("not inside a checkout of Stampede")?;
    let mut signals = Signals::listen()?;
    let scratch = Scratch::new("test")?;
    let state = StateDir::create(scratch.path())?;
    let lock = state.try_lock()?.context("a new folder is locked")?;
    let bench = tokio::select! {
        bench = Bench::open(&state) => bench?,
        () = signals.next() => bail!("stopped before any test ran"),
    };
    let passed = bench.run_all(&workspace, filter, &mut signals).await;
    bench.fleet.stop().await;
    // Before the folder goes: the data may lie elsewhere, see `infra::postgres`.
    state.wipe(&lock)?;
    passed?;
    Ok(ExitCode::SUCCESS)
}

/// What tests stand on.
struct Bench {
    fleet: Fleet,
    /// URL of the superuser.
    database: String,
    nats_server: String,
}

impl Bench {
    async fn open(state: &StateDir) -> anyhow::Result<Self> {
        let began = Instant::now();
        let secrets = Secrets::open(state)?;
        let programs = Programs::find().await?;
        let nats_server = nats::find(state).await?.display().to_string();
        let port = Ports::default().free()?;
        let own = Identity::own().context("this process cannot find itself")?;
        let fleet = Fleet::new(Arc::new(Board::new(state, RunFile::new(own, Urls::default()))?))?;
        StateDir::private_folder(&state.logs())?;
        let cluster = postgres::cluster(&programs, state, Durability::None, &secrets).await?;
        let tuning =
            Tuning { connections_max: CONNECTIONS_MAX, durability: Durability::None, log: Log::Recycled };
        fleet.start(postgres::spec(&programs, &cluster, state, port, tuning, &secrets)?, 0);
        fleet.ready("postgres").await?;
        progress::done(
            "test bench",
            format_args!("Postgres {} on 127.0.0.1:{port}", programs.version()),
            began,
        );
        let password = secrets.postgres_password(postgres::SUPERUSER)?;
        let database = format!("postgres://{}:{password}@127.0.0.1:{port}/postgres", postgres::SUPERUSER);
        Ok(Self { fleet, database, nats_server })
    }

    async fn run_all(
        &self,
        workspace: &Path,
        filter: &[String],
        signals: &mut Signals,
    ) -> anyhow::Result<()> {
        for step in steps(filter, has_nextest()) {
            progress::say(format_args!("\n$ cargo {}", step.args.join(" ")));
            let mut command = cargo();
            command.args(&step.args).current_dir(workspace);
            if step.needs == Needs::Bench {
                command
                    .env("STAMPEDE_TEST_POSTGRES", &self.database)
                    .env("DATABASE_URL", &self.database)
                    .env("STAMPEDE_TEST_NATS_SERVER", &self.nats_server);
            }
            follow(command, &step, signals).await?;
        }
        Ok(())
    }
}

/// One run of cargo.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    args: Vec<String>,
    needs: Needs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// Compiling alone: a database in the environment would only make the queries be checked against it.
    Nothing,
    Bench,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runner {
    Nextest,
    Cargo,
}

fn has_nextest() -> Runner {
    if locate::on_path("cargo-nextest").is_some() {
        return Runner::Nextest;
    }
    progress::note(
        "cargo-nextest is missing, so tests run one after the other; get it with: cargo install cargo-nextest --locked",
    );
    Runner::Cargo
}

/// Binaries first, since the whole-platform tests start them.
fn steps(filter: &[String], runner: Runner) -> Vec<Step> {
    let step = |line: &str, needs| Step { args: line.split(' ').map(str::to_owned).collect(), needs };
    let mut steps = vec![step("build --workspace --bins", Needs::Nothing)];
    match runner {
        Runner::Nextest => {
            steps.push(step("nextest run --workspace --no-run", Needs::Nothing));
            let mut tests = step("nextest run --workspace", Needs::Bench);
            tests.args.extend(filter.iter().cloned());
            steps.push(tests);
        }
        Runner::Cargo => {
            steps.push(step("test --workspace --all-targets --no-run", Needs::Nothing));
            let mut tests = step("test --workspace --all-targets", Needs::Bench);
            if !filter.is_empty() {
                tests.args.push("--".to_owned());
                tests.args.extend(filter.iter().cloned());
            }
            steps.push(tests);
        }
    }
    if filter.is_empty() {
        steps.push(step("test --workspace --doc", Needs::Nothing));
    }
    steps
}

/// Waits for cargo; when we are told to end, it is told too, and gets time to end its tests.
async fn follow(mut command: Command, step: &Step, signals: &mut Signals) -> anyhow::Result<()> {
    let mut child = command.stdin(Stdio::null()).spawn().context("cargo cannot be started")?;
    let pid = child.id();
    let status = tokio::select! {
        status = child.wait() => status?,
        () = signals.next() => {
            // At a terminal it has heard Ctrl-C itself; a second one does no harm.
            if let Some(pid) = pid {
                identity::send(pid, Signal::TERM);
            }
            // Dropping the child kills it.
            let _ = tokio::time::timeout(INTERRUPT_LIMIT, child.wait()).await;
            bail!("stopped");
        }
    };
    ensure!(status.success(), "cargo {} failed ({status})", step.args.join(" "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(filter: &[&str], runner: Runner) -> Vec<String> {
        let filter: Vec<String> = filter.iter().map(|&word| word.to_owned()).collect();
        steps(&filter, runner).into_iter().map(|step| step.args.join(" ")).collect()
    }

    #[test]
    fn nothing_is_compiled_with_a_database_in_the_environment() {
        for runner in [Runner::Nextest, Runner::Cargo] {
            let steps = steps(&[], runner);
            let first = steps.iter().position(|step| step.needs == Needs::Bench).unwrap();
            assert!(
                steps[..first].iter().any(|step| step.args.contains(&"--no-run".to_owned())),
                "{steps:?}"
            );
        }
    }

    #[test]
    fn a_filter_goes_to_the_tests_and_leaves_out_the_examples() {
        assert_eq!(lines(&[], Runner::Nextest).last().unwrap(), "test --workspace --doc");
        assert_eq!(lines(&["a", "b"], Runner::Nextest).last().unwrap(), "nextest run --workspace a b");
        assert_eq!(lines(&["a"], Runner::Cargo).last().unwrap(), "test --workspace --all-targets -- a");
    }
}
