//! The infrastructure for real: private Postgres, NATS and mail sink, started and stopped as `up` does it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod data;
mod first_start;
#[cfg(target_os = "linux")]
mod images;
mod kind;
mod life;
mod rights;
mod surroundings;
mod verify;

use std::process::Output;
use std::time::Duration;

use stampede::Identity;
use stampede::platform::{Extent, Options, Platform};
use stampede::run_file::{Entry, RunFile};
use stampede_testkit::eventually;

/// For what takes a moment on an idle machine.
const SOON: Duration = Duration::from_secs(60);

async fn infrastructure() -> Platform {
    Platform::start(Options { extent: Extent::Infrastructure, ..Options::default() }).await.unwrap()
}

fn entry(platform: &Platform, name: &str) -> Entry {
    let run = platform.run_file().unwrap();
    run.processes.into_iter().find(|entry| entry.name == name).unwrap()
}

fn identities(run: &RunFile) -> Vec<Identity> {
    run.processes.iter().filter_map(|entry| entry.identity.clone()).collect()
}

async fn all_ended(identities: &[Identity]) {
    eventually(SOON, async || !identities.iter().any(Identity::is_alive)).await;
}

/// Runs the command line with the state folder of a platform.
async fn stampede(args: &[&str], platform: &Platform) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_stampede"));
    command.args(args).arg("--state").arg(platform.state.root()).output().await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// Kills without asking, by number: only for processes that a platform of ours has just named.
fn kill(identity: &Identity) {
    let status = std::process::Command::new("kill").args(["-9", &identity.pid.to_string()]).status().unwrap();
    assert!(status.success());
}
