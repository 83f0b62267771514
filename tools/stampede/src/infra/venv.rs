//! A private Python environment for programs that PyPI has and the machine may not: NATS and the mail sink.
//!
//! It lies in the checkout's `.stampede`, whatever state folder is used, so that throw-away platforms of tests do
//! not fetch it again and again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::process::Command;

use super::locate;
use super::packages::Missing;
use crate::progress;
use crate::state::{self, StateDir};

const PYTHON: Missing = Missing {
    what: "Python 3 with its venv module",
    debian: &["python3", "python3-venv"],
    fedora: "sudo dnf install python3",
    macos: "brew install python",
};
/// Names the packages an environment was finished with; without it the environment is made anew.
const FINISHED: &str = "stampede-packages";

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Venv {
    folder: PathBuf,
}

impl Venv {
    /// The environment with these packages in it, made or completed when needed.
    pub(crate) async fn with(packages: &[&str], state: &StateDir) -> anyhow::Result<Self> {
        let shared = state::workspace().map(|workspace| workspace.join(".stampede"));
        if let Some(home) = &shared {
            let venv = Self { folder: home.join("venv") };
            if venv.has(packages) {
                return Ok(venv);
            }
        }
        // In somebody else's checkout we may look and not write.
        let home = shared.and_then(|home| StateDir::create(&home).ok()).filter(is_ours);
        Self::made_in(&home.unwrap_or_else(|| state.clone()), packages).await
    }

    async fn made_in(home: &StateDir, packages: &[&str]) -> anyhow::Result<Self> {
        let venv = Self { folder: home.root().join("venv") };
        // Another `up` may be at it; whoever comes second finds the work done.
        let lock = File::create(home.root().join("venv.lock"))?;
        let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
        if !venv.has(packages) {
            venv.make(packages).await?;
        }
        drop(lock);
        Ok(venv)
    }

    /// A program in the environment.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    fn has(&self, packages: &[&str]) -> bool {
        let installed = fs::read_to_string(self.folder.join(FINISHED)).unwrap_or_default();
        // Its Python is a link, perhaps to somewhere we may not go or that is gone.
        self.program("python").exists()
            && packages.iter().all(|wanted| installed.lines().any(|line| line == *wanted))
    }

    async fn make(&self, packages: &[&str]) -> anyhow::Result<()> {
        let finished = self.folder.join(FINISHED);
        let mut before = fs::read_to_string(&finished).unwrap_or_default();
        if before.is_empty() || !self.program("python").exists() {
            before.clear();
            if self.folder.exists() {
                fs::remove_dir_all(&self.folder).context("cannot replace a half-made Python environment")?;
            }
            let python = python().await?;
            run(Command::new(python).args(["-m", "venv"]).arg(&self.folder)).await?;
        }
        progress::note(&format!("fetching {} into {}", packages.join(", "), self.folder.display()));
        let mut pip = Command::new(self.program("python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
        // A person's pip.conf may say otherwise, and there is no such place in this environment.
        pip.env("PIP_USER", "0");
        run(&mut pip).await?;
        let mut all: Vec<&str> = before.lines().chain(packages.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        fs::write(&finished, all.join("\n") + "\n")?;
        Ok(())
    }
}

fn is_ours(home: &StateDir) -> bool {
    File::create(home.root().join("venv.lock")).is_ok()
}

/// A Python that can make environments.
async fn python() -> anyhow::Result<PathBuf> {
    for attempt in ["found", "installed"] {
        let system = PathBuf::from("/usr/bin/python3");
        for python in locate::on_path("python3").into_iter().chain([system]) {
            if makes_environments(&python).await {
                return Ok(python);
            }
        }
        if attempt == "found" {
            PYTHON.install().await?;
        }
    }
    anyhow::bail!("{}", PYTHON.instructions())
}

async fn makes_environments(python: &Path) -> bool {
    let script = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))";
    let mut command = Command::new(python);
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

async fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{:?} failed:\n{}", command.as_std(), String::from_utf8_lossy(&said));
    Ok(())
}
