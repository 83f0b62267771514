//! Installing what the machine lacks, or saying exactly what that is.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use super::locate;
use crate::progress;

/// Something the machine lacks, and the line that installs it where we cannot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Missing {
    /// In words: "Postgres 15 or newer".
    pub(crate) what: &'static str,
    /// Packages of Debian and Ubuntu.
    pub(crate) debian: &'static [&'static str],
    /// The whole line for Fedora.
    pub(crate) fedora: &'static str,
    /// The whole line for macOS.
    pub(crate) macos: &'static str,
}

impl Missing {
    /// Installs it with apt-get when we may, else fails with the lines for a person.
    pub(crate) async fn install(&self) -> anyhow::Result<()> {
        if !may_use_apt() {
            bail!("{}", self.instructions());
        }
        progress::note(&format!("{} is missing: installing {}", self.what, self.debian.join(" ")));
        apt(&["update"]).await?;
        let mut install = vec!["install", "--yes", "--no-install-recommends"];
        install.extend(self.debian);
        apt(&install).await
    }

    /// What is missing and how to get it.
    pub(crate) fn instructions(&self) -> String {
        format!(
            "{} is missing. Install it, then try again:\n  Debian, Ubuntu:  sudo apt-get install {}\n  Fedora:          {}\n  macOS:           {}",
            self.what,
            self.debian.join(" "),
            self.fedora,
            self.macos
        )
    }
}

fn may_use_apt() -> bool {
    let is_debian = fs::read_to_string("/etc/os-release").is_ok_and(|text| is_debian_like(&text));
    rustix::process::geteuid().is_root() && is_debian && locate::on_path("apt-get").is_some()
}

fn is_debian_like(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|ids| ids.trim_matches('"').split(' '))
        .any(|id| id == "debian" || id == "ubuntu")
}

/// Runs apt-get with its output where a person sees it.
async fn apt(args: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .context("apt-get cannot be started")?;
    ensure!(status.success(), "apt-get {} failed ({status})", args.join(" "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relatives_of_debian_are_recognised() {
        assert!(is_debian_like("PRETTY_NAME=\"x\"\nID=debian\n"));
        assert!(is_debian_like("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian_like("ID=fedora\nVARIANT_ID=debian\n"));
    }

    #[test]
    fn a_person_learns_what_is_missing_and_the_line_for_each_system() {
        let missing = Missing { what: "Tea", debian: &["tea", "cup"], fedora: "dnf tea", macos: "brew tea" };
        let text = missing.instructions();
        for part in ["Tea is missing", "apt-get install tea cup", "dnf tea", "brew tea"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
