//! Who keeps images and runs them.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use tokio::process::Command;

use crate::infra::locate;

/// In the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    Docker,
    Podman,
    Buildah,
}

impl Engine {
    /// The one that was chosen, or the first that answers.
    pub(crate) async fn find(chosen: Option<Self>) -> anyhow::Result<Self> {
        let candidates = chosen.map_or_else(|| Self::value_variants().to_vec(), |engine| vec![engine]);
        let mut refusals = Vec::new();
        for engine in candidates {
            match engine.answers().await {
                Ok(()) => return Ok(engine),
                Err(reason) => refusals.push(format!("  {}: {reason:#}", engine.name())),
            }
        }
        bail!("{}", none(&refusals))
    }

    /// Puts an archive's image where it keeps its own; it has the archive's name for it.
    pub(crate) async fn load(self, archive: &Path) -> anyhow::Result<()> {
        let archive = archive.display();
        match self {
            Self::Docker | Self::Podman => {
                self.run(&["load", "--quiet", "--input", &archive.to_string()]).await
            }
            Self::Buildah => self.run(&["pull", "--quiet", &format!("docker-archive:{archive}")]).await,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Buildah => "buildah",
        }
    }

    /// A client alone, without whom it speaks for, is no use.
    async fn answers(self) -> anyhow::Result<()> {
        ensure!(locate::on_path(self.name()).is_some(), "it is not on the PATH");
        self.run(&["info"]).await
    }

    async fn run(self, args: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(self.name());
        command.args(args).stdin(Stdio::null()).kill_on_drop(true);
        let Output { status, stderr, .. } =
            command.output().await.with_context(|| format!("{} cannot be started", self.name()))?;
        let said = String::from_utf8_lossy(&stderr);
        ensure!(status.success(), "`{} {}` says: {}", self.name(), args.join(" "), said.trim());
        Ok(())
    }
}

fn none(refusals: &[String]) -> String {
    format!(
        "there is no container engine:\n{}\nInstall one (sudo apt-get install podman), or write archives, which needs none: --archive target/images",
        refusals.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_engine_a_person_learns_why_and_what_needs_none() {
        let said = none(&["  docker: it is asleep".to_owned(), "  podman: it is not on the PATH".to_owned()]);
        for part in ["docker: it is asleep", "podman: it is not", "--archive target/images"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
