//! Finding Postgres' programs, or installing them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::can_run;
use crate::infra::packages::Missing;
use crate::infra::{account, locate};

/// Since 15 the owner of a database, and not everybody, may create tables in it.
const MAJOR_MIN: u32 = 15;
const POSTGRES: Missing = Missing {
    what: "Postgres 15 or newer",
    debian: &["postgresql"],
    fedora: "sudo dnf install postgresql-server",
    macos: "brew install postgresql@17",
};
/// Folders with one folder a version: Debian, Fedora's PGDG packages, Homebrew on both kinds of Mac.
const VERSIONED: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr", "bin"),
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
];
/// Debian's packages make and start a cluster of the system unless told otherwise here.
const NO_SYSTEM_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/stampede.conf";

/// A folder with `postgres` and `initdb` of the same version.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    folder: PathBuf,
    version: Vec<u32>,
}

impl Programs {
    /// The newest that is on the machine, installed if there is none.
    pub(crate) async fn find() -> anyhow::Result<Self> {
        if let Some(found) = Self::newest()? {
            return Ok(found);
        }
        install().await?;
        Self::newest()?.ok_or_else(|| anyhow!("{}", POSTGRES.instructions()))
    }

    pub(crate) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    pub(crate) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    pub(crate) fn version(&self) -> String {
        locate::dotted(&self.version)
    }

    pub(crate) fn major(&self) -> u32 {
        self.version.first().copied().unwrap_or_default()
    }

    fn newest() -> anyhow::Result<Option<Self>> {
        let account = account::for_postgres()?;
        let found = candidates()
            .into_iter()
            .filter(|folder| can_run(account, folder))
            .filter_map(|folder| Self::at(&folder));
        Ok(found.filter(|programs| programs.major() >= MAJOR_MIN).max_by(|a, b| a.version.cmp(&b.version)))
    }

    fn at(folder: &Path) -> Option<Self> {
        // A link on PATH leads to the folder where the rest of Postgres lies.
        let folder = folder.join("postgres").canonicalize().ok()?.parent()?.to_path_buf();
        if !folder.join("initdb").is_file() {
            return None;
        }
        Some(Self { version: locate::version(&folder.join("postgres"))?, folder })
    }
}

fn candidates() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = locate::on_path("postgres")
        .iter()
        .filter_map(|program| program.parent())
        .map(Path::to_path_buf)
        .collect();
    for (root, bin) in VERSIONED {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        let versions = entries.map(|entry| entry.path()).filter(|path| is_versioned(path));
        folders.extend(versions.map(|path| path.join(bin)).filter(|path| path.join("postgres").exists()));
    }
    folders
}

/// `15`, `pgsql-16` or `postgresql@17`.
fn is_versioned(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let number = name.strip_prefix("pgsql-").or_else(|| name.strip_prefix("postgresql@")).unwrap_or(name);
    !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
}

/// Installs the packages without letting them make a cluster of the system.
async fn install() -> anyhow::Result<()> {
    let drop_in = Path::new(NO_SYSTEM_CLUSTER);
    let placed = drop_in.parent().is_some_and(|folder| fs::create_dir_all(folder).is_ok())
        && fs::write(drop_in, "create_main_cluster = false\n").is_ok();
    let installed = POSTGRES.install().await;
    if placed {
        // What somebody installs later is theirs to decide.
        fs::remove_file(drop_in)?;
    }
    installed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versioned_folders_are_told_from_others() {
        for name in ["15", "pgsql-16", "postgresql@17"] {
            assert!(is_versioned(Path::new("/x").join(name).as_path()), "{name}");
        }
        for name in ["bin", "pgsql-", "postgresql", "lib64"] {
            assert!(!is_versioned(Path::new("/x").join(name).as_path()), "{name}");
        }
    }
}
