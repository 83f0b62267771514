//! The run file: what runs, where it listens, how it is. `up` writes it whenever something changes, every other
//! command reads it. It names no secrets.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::process::identity::Identity;
use crate::secrets::Secrets;
use crate::state::StateDir;

/// Version of the layout, raised when a reader of the old one would go wrong.
const VERSION: u32 = 1;

/// Everything about a running platform.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunFile {
    /// Version of this layout.
    pub version: u32,
    /// How far it is.
    pub stage: Stage,
    /// The `stampede up` that owns it.
    pub up: Identity,
    /// RFC 3339.
    pub started_at: String,
    /// Where everything listens.
    pub urls: Urls,
    /// In the order in which they were started.
    pub processes: Vec<Entry>,
}

/// How far a platform is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Not everything is ready yet.
    Starting,
    /// Tickets can be bought.
    Ready,
    /// On its way down.
    Stopping,
}

/// Base URLs, without a slash at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urls {
    /// The public API.
    pub gateway: String,
    /// Where a buyer gets a card token (the simulated payment provider's public side).
    pub tokens: String,
    /// The provider's API for `payments`.
    pub psp: String,
    /// The provider's knobs and its ledger.
    pub psp_admin: String,
    /// `nats://…`; every user's password is among the secrets.
    pub nats: String,
    /// NATS' own monitoring.
    pub nats_monitor: String,
    /// `smtp://…`
    pub smtp: String,
    /// `host:port`
    pub postgres: String,
    /// Where `stampede restart` asks.
    pub control: String,
}

/// One process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Unique in the platform: `orders-1`.
    pub name: String,
    /// What it is one of: `orders`.
    pub kind: String,
    /// `None` while it does not run.
    pub identity: Option<Identity>,
    /// How it is.
    pub phase: Phase,
    /// How often it died and was started again.
    pub restarts: u32,
    /// Ports by what they are for: `http`, `admin`, …
    pub ports: BTreeMap<String, u16>,
    /// Its output.
    pub log: PathBuf,
    /// Number of the signal that makes it finish and end.
    pub stop_signal: i32,
}

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Runs, and is not ready yet.
    Starting,
    /// Has been ready since its last start.
    Ready,
    /// Died; is started again in a moment.
    Pausing,
    /// Was told to end.
    Stopping,
    /// Ended because it was told to.
    Stopped,
    /// Died too often.
    GaveUp,
}

impl RunFile {
    pub(crate) fn new(up: Identity, urls: Urls) -> Self {
        let started_at = stampede_contracts::Timestamp::now().to_string();
        Self { version: VERSION, stage: Stage::Starting, up, started_at, urls, processes: Vec::new() }
    }

    /// Reads the run file of a state folder; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or another version wrote it.
    pub fn read(state: &StateDir) -> anyhow::Result<Option<Self>> {
        let path = state.run_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let run: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is not a run file", path.display()))?;
        if run.version != VERSION {
            bail!("{} has version {}, this program knows {VERSION}", path.display(), run.version);
        }
        Ok(Some(run))
    }

    /// The run file of a platform whose `up` is alive.
    ///
    /// # Errors
    /// When nothing runs in this state folder.
    pub fn running(state: &StateDir) -> anyhow::Result<Self> {
        match Self::read(state)? {
            Some(run) if run.up.is_alive() => Ok(run),
            _ => bail!("nothing is up in {}; start it with: cargo stampede up", state.root().display()),
        }
    }

    /// Processes of a kind (`orders`), or the one with that name (`orders-2`).
    pub fn select<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.processes.iter().filter(move |entry| entry.name == name || entry.kind == name)
    }

    /// Base URL of a process's admin listener.
    #[must_use]
    pub fn admin_url(&self, name: &str) -> Option<String> {
        let entry = self.processes.iter().find(|entry| entry.name == name)?;
        entry.ports.get("admin").map(|port| format!("http://127.0.0.1:{port}"))
    }

    /// Where the read-only role of `stampede verify` finds a service's database, password included.
    ///
    /// # Errors
    /// When the password cannot be read.
    pub fn verifier_url(&self, database: &str, secrets: &Secrets) -> anyhow::Result<String> {
        let password = secrets.postgres_password(crate::infra::postgres::VERIFIER)?;
        Ok(format!(
            "postgres://{}:{password}@{}/{database}",
            crate::infra::postgres::VERIFIER,
            self.urls.postgres
        ))
    }

    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let beside = path.with_extension("json.new");
        fs::write(&beside, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&beside, path)?;
        Ok(())
    }
}

/// The run file while it is written: every change is on the disk before the call returns, so that a process never
/// runs unrecorded for longer than a moment.
#[derive(Debug)]
pub(crate) struct Board {
    path: PathBuf,
    run: Mutex<RunFile>,
}

impl Board {
    pub(crate) fn new(state: &StateDir, run: RunFile) -> anyhow::Result<Self> {
        let path = state.run_file();
        run.write(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path, run: Mutex::new(run) })
    }

    /// A copy of what it says now.
    pub(crate) fn snapshot(&self) -> RunFile {
        self.run.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn add(&self, entry: Entry) {
        self.change(|run| run.processes.push(entry));
    }

    pub(crate) fn update(&self, name: &str, change: impl FnOnce(&mut Entry)) {
        self.change(|run| {
            if let Some(entry) = run.processes.iter_mut().find(|entry| entry.name == name) {
                change(entry);
            }
        });
    }

    pub(crate) fn enter(&self, stage: Stage) {
        self.change(|run| run.stage = stage);
    }

    fn change(&self, change: impl FnOnce(&mut RunFile)) {
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut run);
        if let Err(error) = run.write(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the run file cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn board(state: &StateDir, up: Identity) -> Board {
        let urls = Urls { postgres: "127.0.0.1:21000".to_owned(), ..Urls::default() };
        Board::new(state, RunFile::new(up, urls)).unwrap()
    }

    fn entry(name: &str, kind: &str) -> Entry {
        Entry {
            name: name.to_owned(),
            kind: kind.to_owned(),
            identity: None,
            phase: Phase::Starting,
            restarts: 0,
            ports: BTreeMap::from([("admin".to_owned(), 21001)]),
            log: PathBuf::from("/tmp/x.log"),
            stop_signal: 15,
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let scratch = Scratch::new("run").unwrap();
        let state = StateDir::create(scratch.path()).unwrap();
        let board = board(&state, Identity::own().unwrap());
        board.add(entry("orders-1", "orders"));
        board.add(entry("orders-2", "orders"));
        board.update("orders-2", |entry| entry.restarts = 3);
        board.enter(Stage::Ready);

        let run = RunFile::running(&state).unwrap();
        assert_eq!(run.stage, Stage::Ready);
        assert_eq!(run.select("orders").count(), 2);
        assert_eq!(run.select("orders-2").map(|entry| entry.restarts).collect::<Vec<_>>(), [3]);
        assert_eq!(run.admin_url("orders-1").as_deref(), Some("http://127.0.0.1:21001"));
        let secrets = Secrets::open(&state).unwrap();
        let url = run.verifier_url("orders", &secrets).unwrap();
        assert!(url.starts_with("postgres://verifier:") && url.ends_with("@127.0.0.1:21000/orders"), "{url}");
    }

    #[test]
    fn a_run_file_whose_owner_died_is_not_a_running_platform() {
        let scratch = Scratch::new("run-dead").unwrap();
        let state = StateDir::create(scratch.path()).unwrap();
        assert!(RunFile::read(&state).unwrap().is_none());
        board(&state, Identity { pid: 1, began: "long ago".to_owned() });
        assert!(RunFile::read(&state).unwrap().is_some());
        assert!(RunFile::running(&state).is_err());
    }

    #[test]
    fn another_layout_is_refused() {
        let scratch = Scratch::new("run-version").unwrap();
        let state = StateDir::create(scratch.path()).unwrap();
        let mut run = RunFile::new(Identity::own().unwrap(), Urls::default());
        run.version = VERSION + 1;
        run.write(&state.run_file()).unwrap();
        assert!(RunFile::read(&state).unwrap_err().to_string().contains("version"));
    }
}
