//! Which process a number means. The system gives the number of an ended process to a new one, so a number that
//! was written down is only believed together with the moment its process began.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

/// How often a process we did not start is looked at while we wait for its end.
const POLL: Duration = Duration::from_millis(20);

/// Ends a process without asking it.
pub(crate) const KILL: Signal = Signal::KILL;

/// A process, recognisable after we are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The system's number for the process.
    pub pid: u32,
    /// When it began, in the system's own words: on Linux the boot's id and clock ticks since then.
    pub began: String,
}

impl Identity {
    /// The process that has this number now.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        began(pid).map(|began| Self { pid, began })
    }

    /// Ourselves.
    #[must_use]
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether that very process still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        began(self.pid).as_ref() == Some(&self.began)
    }

    /// Signals that very process; nothing happens when it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.is_alive() {
            send(self.pid, signal);
        }
    }

    /// Waits for its end, at most this long; says whether it came.
    pub(crate) async fn ended_within(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }
}

/// Signals a process by number. Only for numbers that cannot be stale: our own children that we have not waited for.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // The one failure that can happen here is that it has ended meanwhile, which is what was wanted.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn began(pid: u32) -> Option<String> {
    if cfg!(target_os = "linux") { began_on_linux(pid) } else { began_elsewhere(pid) }
}

fn began_on_linux(pid: u32) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (state, ticks) = state_and_ticks(&stat)?;
    // A zombie has ended; only its parent has not noticed.
    (state != "Z" && state != "X").then(|| format!("{}:{ticks}", boot.trim_end()))
}

/// Fields 3 and 22 of `proc(5)`'s `stat`. The name in field 2 may hold spaces and brackets, so the count begins
/// after the last bracket.
fn state_and_ticks(stat: &str) -> Option<(&str, &str)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    Some((fields.next()?, fields.nth(18)?))
}

fn began_elsewhere(pid: u32) -> Option<String> {
    let output = Command::new("ps").args(["-o", "lstart=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_alive_and_another_of_our_number_is_not_us() {
        let us = Identity::own().unwrap();
        assert!(us.is_alive());
        assert!(!Identity { began: format!("{}0", us.began), ..us }.is_alive());
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(state_and_ticks(stat), Some(("S", "4711")));
    }

    #[tokio::test]
    async fn an_ended_process_is_gone_even_before_its_parent_looked() {
        let mut child = Command::new("true").spawn().unwrap();
        let identity = Identity::of(child.id());
        if let Some(identity) = identity {
            assert!(identity.ended_within(Duration::from_secs(5)).await);
        }
        child.wait().unwrap();
        assert!(Identity::of(child.id()).is_none());
    }
}
