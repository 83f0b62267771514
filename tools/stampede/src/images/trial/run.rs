//! A process and what it says.

use std::fmt::Display;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// All that is waited for takes a moment on an idle machine.
const LIMIT: Duration = Duration::from_secs(20);
/// What a person is shown of what it said.
const TAIL: usize = 5;

/// Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Run {
    child: Child,
    lines: Lines<BufReader<Receiver>>,
    said: Vec<String>,
}

impl Run {
    pub(super) fn start(mut command: Command) -> Result<Self> {
        // Both in one pipe: logs are on standard output, what `main` returns is on the other.
        let (reader, writer) = io::pipe()?;
        command.stdout(writer.try_clone()?).stderr(writer);
        let child = command.spawn().context("it cannot be started")?;
        let lines = BufReader::new(Receiver::from_owned_fd(OwnedFd::from(reader))?).lines();
        Ok(Self { child, lines, said: Vec::new() })
    }

    pub(super) fn pid(&self) -> Result<u32> {
        self.child.id().context("it has ended")
    }

    /// Reads until a line has what is wanted; nothing when it ended before it said that.
    pub(super) async fn until<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
        let read = async {
            while let Some(line) = self.lines.next_line().await? {
                let found = wanted(&line);
                self.said.push(line);
                if found.is_some() {
                    return anyhow::Ok(found);
                }
            }
            Ok(None)
        };
        match timeout(LIMIT, read).await {
            Ok(found) => found,
            Err(_) => bail!("it did not say what it should within {LIMIT:?}, but:\n{}", self.tail()),
        }
    }

    /// Reads to its end.
    pub(super) async fn ended(&mut self) -> Result<ExitStatus> {
        self.until(|_| None::<()>).await?;
        Ok(self.child.wait().await?)
    }

    /// Asks it to end, and waits until it does.
    pub(super) async fn ask_to_end(&mut self) -> Result<ExitStatus> {
        let pid = i32::try_from(self.pid()?).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.context("it has no number")?, rustix::process::Signal::TERM)?;
        self.ended().await
    }

    /// Ends it, and waits until its ports are free.
    pub(super) async fn stop(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    pub(super) fn said(&self) -> String {
        self.said.join("\n")
    }

    /// The last lines of what it said.
    pub(super) fn tail(&self) -> impl Display {
        self.said[self.said.len().saturating_sub(TAIL)..].join("\n")
    }
}
