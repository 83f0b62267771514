//! Folders that live as long as a value: for the throw-away state of `stampede test` and of whole-platform tests.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A new folder under the system's temporary folder, deleted with everything in it when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes `stampede-<purpose>-<random>`.
    ///
    /// # Errors
    /// When the system's temporary folder refuses it.
    pub fn new(purpose: &str) -> io::Result<Self> {
        let name = format!("stampede-{purpose}-{:016x}", rand::random::<u64>());
        // The full path, because links on the way (macOS has one) would make comparisons of paths fail.
        let path = std::env::temp_dir().canonicalize()?.join(name);
        // Others may pass through: Postgres works below it as another user when we are root.
        fs::DirBuilder::new().mode(0o711).create(&path)?;
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing sensible can be done about a failure here; the system clears its temporary folder itself.
        let _ = fs::remove_dir_all(&self.path);
    }
}
