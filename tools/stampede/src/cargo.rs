//! Cargo, and finding what it built.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::services::SERVICES;

/// One list for both programs that start cargo.
#[path = "../../launcher/src/environment.rs"]
mod environment;

/// The folder with all binaries of the services.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// The binaries in that folder.
    pub(crate) fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        // Processes are started in folders of their own, where a relative path means another place.
        let binaries = Self { folder: std::path::absolute(folder)? };
        for service in SERVICES {
            let program = binaries.program(service.package);
            ensure!(
                program.is_file(),
                "{} is not built; use `cargo stampede` without --no-build, or: cargo build --workspace --bins",
                program.display()
            );
        }
        Ok(binaries)
    }

    /// Those that lie beside this program.
    pub(crate) fn beside_us() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("this program does not know where it lies")?;
        Self::in_folder(own.parent().unwrap_or(Path::new("/")))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn program(&self, package: &str) -> PathBuf {
        self.folder.join(package)
    }
}

/// Why nothing can be built.
pub(crate) const NO_CARGO: &str = "cargo cannot be started; it comes with Rust: https://rustup.rs";

/// The package that is selected beside a crate, so that what the crate is made of has the features that it has in the
/// whole workspace, and is compiled once; see its README.
pub(crate) const LAUNCHER: &str = "stampede-launcher";

/// What `cargo metadata` says, as far as we read it.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_root: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` for a normal one, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

/// A line of cargo's `--message-format=json`, as far as we read it.
#[derive(Debug, Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

/// Cargo, the same one that runs us if it does.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Queries are checked against the committed `.sqlx`, never against a database somebody happens to have.
    command.env_remove("DATABASE_URL").stdin(Stdio::null()).kill_on_drop(true);
    for name in environment::of_a_package() {
        command.env_remove(name);
    }
    command
}

/// The crates of the workspace.
pub(crate) async fn metadata(workspace: &Path) -> anyhow::Result<Metadata> {
    let mut command = cargo();
    command.args(["metadata", "--format-version", "1", "--no-deps"]).current_dir(workspace);
    let output = command.output().await.context(NO_CARGO)?;
    ensure!(output.status.success(), "cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Runs a build of all services, and finds what it made; cargo shows its progress on standard error.
pub(crate) async fn programs(mut command: Command) -> anyhow::Result<Binaries> {
    command.args(["--message-format", "json-render-diagnostics"]);
    let mut child = command.stdout(Stdio::piped()).spawn().context(NO_CARGO)?;
    let output = child.stdout.take().context("cargo's output is closed")?;
    let mut lines = BufReader::new(output).lines();
    let mut folder = None;
    while let Some(line) = lines.next_line().await? {
        if let Some(program) = executable(&line) {
            folder = program.parent().map(Path::to_path_buf);
        }
    }
    let status = child.wait().await?;
    ensure!(status.success(), "the services do not build ({status})");
    Binaries::in_folder(&folder.context("cargo built no program")?)
}

fn executable(line: &str) -> Option<PathBuf> {
    serde_json::from_str::<Message>(line).ok()?.executable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_meant_from_here_wherever_its_programs_are_started() {
        let missing = Binaries::in_folder(Path::new("no/such/folder")).unwrap_err().to_string();
        let here = std::env::current_dir().unwrap();
        assert!(missing.contains(&here.join("no/such/folder").display().to_string()), "{missing}");
    }

    #[test]
    fn programs_are_told_from_libraries() {
        let program = r#"{"reason":"compiler-artifact","target":{"kind":["bin"]},"executable":"/t/debug/stampede-orders"}"#;
        assert_eq!(executable(program), Some(PathBuf::from("/t/debug/stampede-orders")));
        assert_eq!(executable(r#"{"reason":"compiler-artifact","executable":null}"#), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable("warning: not json"), None);
    }
}
