//! `test`: everything that must be green, or one crate. Tests get a Postgres and a NATS program of their own, on free
//! ports and in a throw-away folder, so that they disturb no running platform and none disturbs them.

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use tokio::process::Command;

use crate::cargo::{self, LAUNCHER, Metadata, Package, cargo};
use crate::cli;
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

pub(crate) async fn run(options: &cli::Test) -> anyhow::Result<ExitCode> {
    let workspace = state::workspace().context("not inside a checkout of Stampede")?;
    let selection = Selection::of(options, &cargo::metadata(&workspace).await?)?;
    let mut signals = Signals::listen()?;
    let scratch = Scratch::new("test")?;
    let state = StateDir::create(scratch.path())?;
    let lock = state.try_lock()?.context("a new folder is locked")?;
    let bench = tokio::select! {
        bench = Bench::open(&state, selection.servers) => bench?,
        () = signals.next() => bail!("stopped before any test ran"),
    };
    let passed =
        bench.run_all(&workspace, steps(&selection, &options.filter, has_nextest()), &mut signals).await;
    bench.fleet.stop().await;
    // Before the folder goes: the data may lie elsewhere, see `infra::postgres`.
    state.wipe(&lock)?;
    passed?;
    Ok(ExitCode::SUCCESS)
}

/// What is built and tested.
#[derive(Debug)]
struct Selection {
    /// Names of packages; none means the whole workspace.
    packages: Vec<String>,
    /// Unit tests alone.
    lib: bool,
    /// Nothing is run.
    no_run: bool,
    servers: Servers,
}

/// What the tests of a crate stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Servers {
    postgres: bool,
    nats: bool,
}

impl Selection {
    fn of(options: &cli::Test, metadata: &Metadata) -> anyhow::Result<Self> {
        let find = |given: &String| {
            let is_meant =
                |name: &str| name == given || name.strip_prefix("stampede-") == Some(given.as_str());
            let names = || metadata.packages.iter().map(|package| package.name.as_str()).collect::<Vec<_>>();
            let found = metadata.packages.iter().find(|package| is_meant(&package.name));
            found.with_context(|| format!("there is no crate {given}; there are: {}", names().join(", ")))
        };
        let packages = options.packages.iter().map(find).collect::<anyhow::Result<Vec<&Package>>>()?;
        let depends = |on: &[&str]| {
            packages
                .iter()
                .flat_map(|package| &package.dependencies)
                .any(|one| on.contains(&one.name.as_str()))
        };
        let (runs, all) = (!options.no_run, packages.is_empty());
        let needs = |on: &[&str]| runs && (all || !options.lib && depends(on));
        let servers = Servers { postgres: needs(&["sqlx"]), nats: needs(&["async-nats", "stampede-bus"]) };
        let packages = packages.iter().map(|package| package.name.clone()).collect();
        Ok(Self { packages, lib: options.lib, no_run: options.no_run, servers })
    }

    /// The tests of the command line start every other program.
    fn needs_programs(&self) -> bool {
        self.packages.is_empty()
            || !self.lib && self.packages.iter().any(|name| name == env!("CARGO_PKG_NAME"))
    }

    fn arguments(&self) -> Vec<&str> {
        if self.packages.is_empty() {
            return vec!["--workspace"];
        }
        let names = std::iter::once(LAUNCHER).chain(self.packages.iter().map(String::as_str));
        names.flat_map(|name| ["--package", name]).chain(self.lib.then_some("--lib")).collect()
    }
}

/// Servers for tests, and how tests find them.
struct Bench {
    fleet: Fleet,
    environment: Vec<(&'static str, String)>,
}

impl Bench {
    async fn open(state: &StateDir, servers: Servers) -> anyhow::Result<Self> {
        let own = Identity::own().context("this process cannot find itself")?;
        let fleet = Fleet::new(Arc::new(Board::new(state, RunFile::new(own, Urls::default()))?))?;
        let mut bench = Self { fleet, environment: Vec::new() };
        if servers.postgres {
            bench.start_postgres(state).await?;
        }
        if servers.nats {
            let program = nats::find(state).await?.display().to_string();
            bench.environment.push(("STAMPEDE_TEST_NATS_SERVER", program));
        }
        Ok(bench)
    }

    async fn start_postgres(&mut self, state: &StateDir) -> anyhow::Result<()> {
        let began = Instant::now();
        let secrets = Secrets::open(state)?;
        let programs = Programs::find().await?;
        let port = Ports::default().free()?;
        StateDir::private_folder(&state.logs())?;
        let cluster = postgres::cluster(&programs, state, Durability::None, &secrets).await?;
        let tuning =
            Tuning { connections_max: CONNECTIONS_MAX, durability: Durability::None, log: Log::Recycled };
        self.fleet.start(postgres::spec(&programs, &cluster, state, port, tuning, &secrets)?, 0);
        self.fleet.ready("postgres").await?;
        progress::done(
            "test bench",
            format_args!("Postgres {} on 127.0.0.1:{port}", programs.version()),
            began,
        );
        let password = secrets.postgres_password(postgres::SUPERUSER)?;
        let database = format!("postgres://{}:{password}@127.0.0.1:{port}/postgres", postgres::SUPERUSER);
        self.environment.extend([("STAMPEDE_TEST_POSTGRES", database.clone()), ("DATABASE_URL", database)]);
        Ok(())
    }

    async fn run_all(&self, workspace: &Path, steps: Vec<Step>, signals: &mut Signals) -> anyhow::Result<()> {
        for step in steps {
            progress::say(format_args!("\n$ cargo {}", step.args.join(" ")));
            let mut command = cargo();
            command.args(&step.args).current_dir(workspace);
            if step.needs == Needs::Bench {
                command.envs(self.environment.iter().map(|(name, value)| (name, value)));
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

/// Compiled first, without a database in the environment. Programs before all, since tests of the platform start them.
fn steps(selection: &Selection, filter: &[String], runner: Runner) -> Vec<Step> {
    let step = |line: &[&str], more: &[&str], needs| {
        let args =
            line.iter().chain(&selection.arguments()).chain(more).map(|&word| word.to_owned()).collect();
        Step { args, needs }
    };
    let mut steps = Vec::new();
    if selection.needs_programs() {
        let args = ["build", "--workspace", "--exclude", LAUNCHER, "--bins"].map(str::to_owned).to_vec();
        steps.push(Step { args, needs: Needs::Nothing });
    }
    // Not `--all-targets`, which would build the launcher for a test, and with it everything.
    let (line, more): (&[&str], &[&str]) = match runner {
        Runner::Nextest => (&["nextest", "run"], &[]),
        Runner::Cargo if selection.lib => (&["test"], &[]),
        Runner::Cargo => (&["test"], &["--tests"]),
    };
    steps.push(step(line, &[more, &["--no-run"]].concat(), Needs::Nothing));
    if selection.no_run {
        return steps;
    }
    let mut tests = step(line, more, Needs::Bench);
    if runner == Runner::Cargo && !filter.is_empty() {
        tests.args.push("--".to_owned());
    }
    tests.args.extend(filter.iter().cloned());
    steps.push(tests);
    if filter.is_empty() && !selection.lib {
        steps.push(step(&["test"], &["--doc"], Needs::Nothing));
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
    use clap::{Args, FromArgMatches};
    use serde_json::json;

    use super::*;

    /// What is run for `test` with these arguments, in a workspace of five crates.
    fn lines(given: &[&str], runner: Runner) -> Vec<String> {
        let (selection, filter) = selected(given).unwrap();
        steps(&selection, &filter, runner).into_iter().map(|step| step.args.join(" ")).collect()
    }

    fn selected(given: &[&str]) -> anyhow::Result<(Selection, Vec<String>)> {
        let package = |(name, on): (&str, &[&str])| {
            let on: Vec<_> = on.iter().map(|name| json!({ "name": name, "kind": null })).collect();
            json!({ "name": name, "manifest_path": "Cargo.toml", "dependencies": on })
        };
        let crates: [(&str, &[&str]); 5] = [
            ("stampede", &["sqlx", "async-nats"]),
            ("stampede-launcher", &[]),
            ("stampede-orders", &["sqlx", "stampede-bus"]),
            ("stampede-psp-sim", &["sqlx"]),
            ("stampede-retry", &["tower", "stampede-testkit"]),
        ];
        let metadata = json!({ "packages": crates.map(package), "workspace_root": "/w" });
        let command = cli::Test::augment_args(clap::Command::new("test"));
        let options = cli::Test::from_arg_matches(&command.get_matches_from(["test"].iter().chain(given)))?;
        Ok((Selection::of(&options, &serde_json::from_value(metadata)?)?, options.filter))
    }

    #[test]
    fn nothing_is_compiled_with_a_database_in_the_environment() {
        for runner in [Runner::Nextest, Runner::Cargo] {
            for given in [&[][..], &["-p", "orders"]] {
                let (selection, filter) = selected(given).unwrap();
                let steps = steps(&selection, &filter, runner);
                let first = steps.iter().position(|step| step.needs == Needs::Bench).unwrap();
                let compiles = |step: &Step| step.args.contains(&"--no-run".to_owned());
                assert!(steps[..first].iter().any(compiles), "{steps:?}");
            }
        }
    }

    #[test]
    fn a_filter_goes_to_the_tests_and_leaves_out_the_examples() {
        assert_eq!(lines(&[], Runner::Nextest).last().unwrap(), "test --workspace --doc");
        assert_eq!(lines(&["a", "b"], Runner::Nextest).last().unwrap(), "nextest run --workspace a b");
        assert_eq!(lines(&["a"], Runner::Cargo).last().unwrap(), "test --workspace --tests -- a");
    }

    #[test]
    fn one_crate_is_built_without_the_programs_of_the_others_and_with_the_features_of_the_whole() {
        let both = "--package stampede-launcher --package stampede-orders";
        let run = |more: &str| format!("nextest run {both}{more}");
        let examples = format!("test {both} --doc");
        assert_eq!(lines(&["-p", "orders"], Runner::Nextest), [run(" --no-run"), run(""), examples]);
        assert_eq!(
            lines(&["-p", "stampede-orders", "--lib"], Runner::Nextest),
            [run(" --lib --no-run"), run(" --lib")]
        );
        assert_eq!(
            lines(&["-p", "orders", "--lib", "a"], Runner::Cargo)[1],
            format!("test {both} --lib -- a")
        );
        assert_eq!(
            lines(&["-p", "stampede"], Runner::Nextest)[0],
            "build --workspace --exclude stampede-launcher --bins"
        );
        assert_eq!(lines(&["-p", "orders", "--no-run"], Runner::Nextest), [run(" --no-run")]);
        let unknown = selected(&["-p", "order"]).unwrap_err().to_string();
        assert!(unknown.contains("no crate order;") && unknown.contains("stampede-orders"), "{unknown}");
    }

    #[test]
    fn only_the_servers_that_a_crate_needs_are_started() {
        let servers = |given: &[&str]| selected(given).unwrap().0.servers;
        assert_eq!(servers(&[]), Servers { postgres: true, nats: true });
        assert_eq!(servers(&["-p", "orders"]), Servers { postgres: true, nats: true });
        assert_eq!(servers(&["-p", "psp-sim"]), Servers { postgres: true, nats: false });
        assert_eq!(servers(&["-p", "retry"]), Servers { postgres: false, nats: false });
        assert_eq!(servers(&["-p", "retry", "-p", "orders"]), Servers { postgres: true, nats: true });
        assert_eq!(servers(&["--no-run"]), Servers { postgres: false, nats: false });
        assert_eq!(servers(&["-p", "orders", "--lib"]), Servers { postgres: false, nats: false });
    }
}
