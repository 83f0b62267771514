//! A root file system as a container has it: that of the image, read-only, with the few things that every engine adds.
//!
//! With `unshare` of util-linux alone. As root the user is really 65532; else a user namespace says so, and outside of it
//! the process is ours.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::names;
use crate::cargo::Binaries;
use crate::images::{Image, USER, root};
use crate::infra::locate;
use crate::infra::packages::Missing;

const NO_UNSHARE: Missing = Missing {
    what: "unshare, which makes namespaces",
    debian: &["util-linux"],
    fedora: "sudo dnf install util-linux",
    macos: "try images in Linux",
};
/// Run by `sh` in a mount namespace of its own, `$1` the folder, the rest options of the inner `unshare`.
///
/// Everything replaces what it starts, so that the process we know is the program itself.
const ENTER: &str = r#"
set -eu
root=$1
shift
mount --bind "$root" "$root"
mount -t tmpfs -o mode=0755,size=64k,nosuid,noexec dev "$root/dev"
for node in null zero full random urandom; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mount -o remount,bind,ro "$root/dev"
mount -o remount,bind,ro "$root"
exec unshare "$@"
"#;

/// How this machine lets us make a file system of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Namespaces {
    AsRoot,
    AsUser,
}

impl Namespaces {
    /// Which it is; fails when it is none.
    pub(super) async fn check() -> Result<Self> {
        ensure!(locate::on_path("unshare").is_some(), NO_UNSHARE.instructions());
        let own = if rustix::process::geteuid().is_root() { Self::AsRoot } else { Self::AsUser };
        let output = Command::new("unshare").args(own.outer()).arg("true").output().await?;
        ensure!(
            output.status.success(),
            "this machine lets us make no namespaces: {}\nTry as root, or allow them: sudo sysctl kernel.unprivileged_userns_clone=1 (Debian), kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); a container needs --privileged",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(own)
    }

    /// Who may mount.
    fn outer(self) -> &'static [&'static str] {
        match self {
            Self::AsRoot => &["--mount"],
            Self::AsUser => &["--user", "--map-root-user", "--mount"],
        }
    }

    /// Who the program is.
    fn inner(self) -> Vec<String> {
        match self {
            Self::AsRoot => vec![format!("--setgid={USER}"), format!("--setuid={USER}")],
            Self::AsUser => {
                vec!["--user".to_owned(), format!("--map-user={USER}"), format!("--map-group={USER}")]
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Jail {
    root: PathBuf,
    namespaces: Namespaces,
}

impl Jail {
    /// Makes the root file system of an image below a folder, with the places for what a container has beside it.
    pub(super) fn make(
        folder: &Path,
        image: &Image,
        binaries: &Binaries,
        namespaces: Namespaces,
    ) -> Result<Self> {
        let root = folder.join(image.name);
        image.make_root(binaries, &root)?;
        fs::create_dir(root.join("dev"))?;
        fs::write(root.join("etc/hosts"), names::hosts())?;
        fs::write(root.join("etc/resolv.conf"), names::resolv_conf())?;
        Ok(Self { root, namespaces })
    }

    /// The image's entry point with these arguments, and nothing in its environment but this and a PATH.
    pub(super) fn command(&self, args: &[&str], env: &[(String, String)]) -> Result<Command> {
        let path = std::env::var_os("PATH").context("there is no PATH")?;
        let mut root = OsString::from("--root=");
        root.push(&self.root);
        let mut command = Command::new("unshare");
        command.args(self.namespaces.outer()).args(["sh", "-c", ENTER, "sh"]).arg(&self.root);
        command.args(self.namespaces.inner()).arg(root).args(["--wd=/", "--"]);
        command.arg(format!("/{}", root::PROGRAM)).args(args);
        command.env_clear().env("PATH", path).envs(env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }
}
