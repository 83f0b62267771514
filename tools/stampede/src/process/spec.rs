//! What a process is made of, before it runs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::{Child, Command};

use super::probe::Probe;
use crate::infra::locate;

/// Inherited by every child; nothing else of our environment is, so that a stray variable in somebody's shell does
/// not change what a service does.
const INHERITED: [&str; 6] = ["PATH", "HOME", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "RUST_BACKTRACE"];

/// A user of the system to run as, instead of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Everything needed to start a process, again and again.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// Unique in the platform: `orders-2`.
    pub(crate) name: String,
    /// What it is one of: `orders`.
    pub(crate) kind: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) account: Option<Account>,
    /// Where it works, `/` when it should not matter.
    pub(crate) folder: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) probe: Probe,
    /// What tells it to finish what it is doing and end.
    pub(crate) stop_signal: Signal,
    /// How long that may take before it is killed.
    pub(crate) stop_limit: Duration,
    /// Ports it listens on, by what they are for.
    pub(crate) ports: BTreeMap<String, u16>,
}

impl Spec {
    /// The command line alone: the same environment and user, output to wherever the caller wants it.
    pub(crate) fn command(&self, args: &[OsString]) -> Command {
        let mut command = leashed(&self.program, self.stop_signal);
        command.args(args).current_dir(&self.folder).env_clear().stdin(Stdio::null()).kill_on_drop(true);
        command.envs(INHERITED.iter().filter_map(|key| std::env::var_os(key).map(|value| (key, value))));
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        // Its own process group: Ctrl-C at the terminal reaches only us, and we stop the rest in order.
        command.process_group(0);
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// Starts it, its output appended to its log.
    pub(crate) fn spawn(&self) -> io::Result<Child> {
        let log = append(&self.log)?;
        self.command(&self.args).stdout(log.try_clone()?).stderr(log).spawn()
    }

    /// How long its log is: what follows is of its next run.
    pub(crate) fn log_length(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |meta| meta.len())
    }

    /// The last lines it wrote after that length, for a person who has to find out why it ended.
    pub(crate) fn log_tail(&self, after: u64, lines: usize) -> String {
        tail(&self.log, after, lines)
    }
}

/// Opens a log for appending, readable by the owner and the group only.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o640).open(path)
}

/// Puts the logs of the last run aside, so that the folder holds two runs and never more.
pub(crate) fn rotate(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            fs::rename(&path, path.with_extension("log.1"))?;
        }
    }
    Ok(())
}

/// The last lines of a text file after so many bytes, indented; empty when there is none.
pub(crate) fn tail(path: &Path, after: u64, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = bytes.get(usize::try_from(after).unwrap_or(usize::MAX)..).unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}\n")).collect()
}

/// A command whose process gets `signal` when we die without having stopped it, where the system can do that
/// (Linux, with `setpriv` of util-linux). Elsewhere the next `up` ends what the run file still names.
fn leashed(program: &Path, signal: Signal) -> Command {
    let name = match signal {
        Signal::INT => "INT",
        _ => "TERM",
    };
    match locate::setpriv() {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", name, "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_tail_is_the_end_of_a_log() {
        let scratch = Scratch::new("tail").unwrap();
        let log = scratch.path().join("a.log");
        fs::write(&log, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&log, 0, 2), "    two\n    three\n");
        assert_eq!(tail(&log, 4, 9), "    two\n    three\n");
        assert_eq!(tail(&log, 0, 9), "    one\n    two\n    three\n");
        assert_eq!(tail(&log, 99, 9), "");
        assert_eq!(tail(&scratch.path().join("none"), 0, 2), "");
    }

    #[test]
    fn logs_of_two_runs_are_kept() {
        let scratch = Scratch::new("rotate").unwrap();
        let log = scratch.path().join("a.log");
        for run in ["first", "second", "third"] {
            rotate(scratch.path()).unwrap();
            fs::write(&log, run).unwrap();
        }
        assert_eq!(fs::read_to_string(&log).unwrap(), "third");
        assert_eq!(fs::read_to_string(scratch.path().join("a.log.1")).unwrap(), "second");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2);
    }
}
