//! `up --detach`: leaves an `up` running in the background and returns when that one is ready.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use tokio::process::{Child, Command};

use super::prepare;
use crate::cli;
use crate::process::identity;
use crate::run_file::{RunFile, Stage};
use crate::signals::Signals;
use crate::state::{StateDir, StateLock};

/// How often we look at the other one's output and run file.
const POLL: Duration = Duration::from_millis(50);

pub(super) async fn run(
    state: &StateDir,
    lock: StateLock,
    options: &cli::Up,
    signals: &mut Signals,
) -> anyhow::Result<ExitCode> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments(options)).arg("--state").arg(state.root());
    if !options.infra {
        let binaries = prepare::binaries(options)?;
        command.arg("--no-build").arg("--binaries").arg(binaries.folder());
    }
    let output = File::create(state.output()).context("cannot write the output of the background process")?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    // The other one takes it.
    drop(lock);
    let mut child = command.spawn().context("cannot start in the background")?;
    let mut watch = Watch { output: File::open(state.output())? };
    tokio::select! {
        code = watch.until_ready(&mut child, state) => code,
        () = signals.next() => {
            if let Some(pid) = child.id() {
                identity::send(pid, Signal::TERM);
            }
            child.wait().await?;
            watch.pass_on();
            Ok(ExitCode::FAILURE)
        }
    }
}

struct Watch {
    output: File,
}

impl Watch {
    /// Bounded by the other one, which waits for nothing without a bound of its own.
    async fn until_ready(&mut self, child: &mut Child, state: &StateDir) -> anyhow::Result<ExitCode> {
        loop {
            let ended = child.try_wait()?;
            let is_ready = RunFile::read(state)?
                .is_some_and(|run| Some(run.up.pid) == child.id() && run.stage == Stage::Ready);
            self.pass_on();
            match ended {
                Some(status) if status.success() => return Ok(ExitCode::SUCCESS),
                Some(_) => return Ok(ExitCode::FAILURE),
                None if is_ready => return Ok(ExitCode::SUCCESS),
                None => tokio::time::sleep(POLL).await,
            }
        }
    }

    fn pass_on(&mut self) {
        let mut text = Vec::new();
        // What cannot be read or shown lies in the file.
        let _ = self.output.read_to_end(&mut text);
        let _ = std::io::stdout().write_all(&text);
        let _ = std::io::stdout().flush();
    }
}

/// The same options, without those that are done here.
fn arguments(options: &cli::Up) -> Vec<String> {
    let mut arguments = vec!["up".to_owned(), "--detached".to_owned()];
    let flags = [
        ("--random-ports", options.random_ports),
        ("--fresh", options.fresh),
        ("--no-seed", options.no_seed),
        ("--infra", options.infra),
        ("--throw-away", options.throw_away),
        ("--archive", options.archive),
    ];
    arguments.extend(flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag.to_owned()));
    let replicas = options.replicas.to_string();
    if !replicas.is_empty() {
        arguments.extend(["--replicas".to_owned(), replicas]);
    }
    for setting in &options.settings {
        arguments.extend(["--set".to_owned(), setting.to_string()]);
    }
    arguments
}
