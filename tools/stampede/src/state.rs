//! The state folder: where one platform keeps its data, its secrets, its logs and its run file.
//!
//! Everything `stampede up` writes lies below one folder, so that two platforms with two folders never meet,
//! and so that deleting the folder deletes the platform. The one exception is named in
//! `infra::postgres`: when we are root and the folder cannot be reached by another
//! user, the data of Postgres lies under `/var/lib/stampede` and the folder holds a link to it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The folder's name inside a checkout.
const DEFAULT_FOLDER: &str = ".stampede";
/// The same of a cluster, whose secrets must outlive an `up --fresh`.
const CLUSTER_FOLDER: &str = ".stampede-cluster";
/// What `--fresh` leaves alone: the lock that is held while it wipes, the downloaded programs, and the output of
/// the very `up --detach` that wipes.
const KEPT_BY_WIPE: [&str; 4] = ["lock", "venv", "venv.lock", "up.out"];

/// A state folder that exists.
#[derive(Clone, Debug)]
pub struct StateDir {
    root: PathBuf,
}

/// Held by the one `stampede up` that owns a state folder. The system lets go of it when that process ends,
/// however it ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateDir {
    /// Opens the state folder, making it when it is missing.
    ///
    /// # Errors
    /// When the folder can neither be found nor made.
    pub fn create(root: &Path) -> anyhow::Result<Self> {
        // Others may pass through (Postgres runs as another user when we are root) but not list.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(root)
            .with_context(|| format!("cannot make the state folder {}", root.display()))?;
        Self::existing(root)
    }

    /// Opens a state folder that must exist already.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn existing(root: &Path) -> anyhow::Result<Self> {
        let root = root.canonicalize().with_context(|| format!("no state folder at {}", root.display()))?;
        Ok(Self { root })
    }

    /// The folder a command uses when none is named: `.stampede` in the checkout.
    ///
    /// # Errors
    /// When we are not inside a checkout.
    pub fn default_root() -> anyhow::Result<PathBuf> {
        Self::in_workspace(DEFAULT_FOLDER)
    }

    /// The folder of a cluster, inside the checkout we work in.
    pub(crate) fn cluster_root() -> anyhow::Result<PathBuf> {
        Self::in_workspace(CLUSTER_FOLDER)
    }

    fn in_workspace(folder: &str) -> anyhow::Result<PathBuf> {
        match workspace() {
            Some(workspace) => Ok(workspace.join(folder)),
            None => bail!("not inside a checkout of Stampede; name a state folder with --state <DIR>"),
        }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Describes what runs; see [`RunFile`](crate::run_file::RunFile).
    #[must_use]
    pub fn run_file(&self) -> PathBuf {
        self.root.join("run.json")
    }

    /// One file a secret, readable by the owner only.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }

    /// One file a process.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// What `up --detach` says.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.root.join("up.out")
    }

    /// Mails that were sent, as a Maildir: the readable files lie in `new/`.
    #[must_use]
    pub fn mail(&self) -> PathBuf {
        self.root.join("mail")
    }

    /// The mail sink's program.
    #[must_use]
    pub fn mail_sink(&self) -> PathBuf {
        self.root.join("mail-sink")
    }

    /// Configuration and JetStream store of NATS.
    #[must_use]
    pub fn nats(&self) -> PathBuf {
        self.root.join("nats")
    }

    /// The data of Postgres, or a link to them.
    #[must_use]
    pub fn postgres(&self) -> PathBuf {
        self.root.join("postgres")
    }

    /// Takes the folder for this process, or says `None` when another one has it.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn try_lock(&self) -> anyhow::Result<Option<StateLock>> {
        let path = self.root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(StateLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// Deletes all data, secrets, mails and logs. Only the holder of the lock may do this.
    ///
    /// # Errors
    /// When something in the folder cannot be deleted.
    pub fn wipe(&self, _held: &StateLock) -> anyhow::Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if KEPT_BY_WIPE.iter().any(|kept| entry.file_name() == *kept) {
                continue;
            }
            remove(&entry.path()).with_context(|| format!("cannot delete {}", entry.path().display()))?;
        }
        Ok(())
    }

    /// Makes a folder below the state folder that only its owner may enter.
    pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
    }
}

/// Deletes a file, a folder, or a link together with the folder it leads to.
fn remove(path: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_symlink() {
        match fs::canonicalize(path) {
            Ok(target) if target.is_dir() => fs::remove_dir_all(target)?,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        return fs::remove_file(path);
    }
    if kind.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// The checkout we work in: looked for above the current folder, then above this program.
#[must_use]
pub fn workspace() -> Option<PathBuf> {
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    [here, program].into_iter().flatten().find_map(|start| checkout_above(&start))
}

fn checkout_above(start: &Path) -> Option<PathBuf> {
    start
        .ancestors()
        .find(|folder| {
            folder.join("tools/stampede/Cargo.toml").is_file() && folder.join("Cargo.toml").is_file()
        })
        .map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_second_owner_is_refused_until_the_first_lets_go() {
        let scratch = Scratch::new("lock").unwrap();
        let state = StateDir::create(scratch.path()).unwrap();
        let held = state.try_lock().unwrap();
        assert!(held.is_some());
        assert!(state.try_lock().unwrap().is_none());
        drop(held);
        assert!(state.try_lock().unwrap().is_some());
    }

    #[test]
    fn a_wipe_takes_the_data_and_leaves_the_programs() {
        let scratch = Scratch::new("wipe").unwrap();
        let elsewhere = Scratch::new("wipe-target").unwrap();
        let state = StateDir::create(scratch.path()).unwrap();
        let lock = state.try_lock().unwrap().unwrap();
        fs::create_dir_all(state.root().join("venv/bin")).unwrap();
        fs::create_dir_all(state.nats()).unwrap();
        fs::write(state.run_file(), "{}").unwrap();
        let data = elsewhere.path().join("data");
        fs::create_dir_all(&data).unwrap();
        std::os::unix::fs::symlink(&data, state.postgres()).unwrap();

        state.wipe(&lock).unwrap();

        assert!(state.root().join("venv/bin").is_dir());
        assert!(!state.nats().exists());
        assert!(!state.run_file().exists());
        assert!(fs::symlink_metadata(state.postgres()).is_err());
        assert!(!data.exists());
        assert!(elsewhere.path().exists());
    }

    #[test]
    fn a_checkout_is_found_from_a_folder_below_it() {
        let scratch = Scratch::new("checkout").unwrap();
        let deep = scratch.path().join("libs/retry/src");
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(checkout_above(&deep), None);
        fs::create_dir_all(scratch.path().join("tools/stampede")).unwrap();
        fs::write(scratch.path().join("tools/stampede/Cargo.toml"), "").unwrap();
        fs::write(scratch.path().join("Cargo.toml"), "").unwrap();
        assert_eq!(checkout_above(&deep).as_deref(), Some(scratch.path()));
    }
}
