//! Random faults: processes of a running platform are killed (SIGKILL) or frozen for a while (SIGSTOP, later SIGCONT).
//! The seed alone decides which process, what happens to it and when.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::bail;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rustix::process::Signal;

use crate::process::identity::{Identity, KILL};
use crate::process::memory::children;
use crate::process::probe;
use crate::progress;
use crate::run_file::{Entry, Phase, RunFile};
use crate::state::StateDir;

/// From one fault to the next.
const PAUSE_MS: RangeInclusive<u64> = 1_000..=5_000;
/// How long a process is frozen: from a hiccup to longer than NATS takes to drop a connection.
const FREEZE_MS: RangeInclusive<u64> = 200..=10_000;
/// From the end of a fault to the next one of the same process. `up` gives up on a process that dies more than five times in
/// 30 s, and a killed Postgres needs several starts: it refuses to start until the last child of the old one has exited.
const REST: Duration = Duration::from_secs(15);
/// From the last fault until every process is ready.
const READY_LIMIT: Duration = Duration::from_secs(120);
const READY_POLL: Duration = Duration::from_millis(100);
/// Stands for a mail server on the internet and is no part of the platform.
const SPARED: &str = "smtp";

/// What happens to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It exits at once; `up` restarts it.
    Kill,
    /// It keeps its connections and does not respond for this long.
    Freeze(Duration),
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    /// Since the first buyer.
    at: Duration,
    process: String,
    kind: Kind,
}

/// The endless series of faults that follows from a seed. A process never has two at a time, and rests after each.
struct Faults {
    rng: SmallRng,
    at: Duration,
    /// Every process with the time at which its rest ends.
    processes: Vec<(String, Duration)>,
}

impl Faults {
    fn new(seed: u64, processes: impl IntoIterator<Item = String>) -> Self {
        let processes = processes.into_iter().map(|name| (name, Duration::ZERO)).collect();
        Self { rng: SmallRng::seed_from_u64(seed), at: Duration::ZERO, processes }
    }
}

impl Iterator for Faults {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        self.at += Duration::from_millis(self.rng.random_range(PAUSE_MS));
        let first_rested = self.processes.iter().map(|(_, rested_at)| *rested_at).min()?;
        self.at = self.at.max(first_rested);
        let mut rested: Vec<_> = self.processes.iter_mut().filter(|(_, at)| *at <= self.at).collect();
        let chosen = self.rng.random_range(0..rested.len());
        let (process, rested_at) = &mut *rested[chosen];
        let freeze = Duration::from_millis(self.rng.random_range(FREEZE_MS));
        let kind = if self.rng.random() { Kind::Kill } else { Kind::Freeze(freeze) };
        *rested_at = self.at + kind.lasts() + REST;
        Some(Fault { at: self.at, process: process.clone(), kind })
    }
}

impl Kind {
    fn lasts(self) -> Duration {
        match self {
            Self::Kill => Duration::ZERO,
            Self::Freeze(length) => length,
        }
    }
}

/// A frozen process with all its descendants. Dropping it resumes them.
struct Frozen {
    name: String,
    until: Duration,
    tree: Vec<Identity>,
}

impl Frozen {
    /// Parents first: a frozen process starts no children.
    fn new(name: &str, until: Duration, top: &Identity) -> Self {
        let mut frozen = Self { name: name.to_owned(), until, tree: Vec::new() };
        let mut pending = vec![top.clone()];
        while let Some(identity) = pending.pop() {
            identity.signal(Signal::STOP);
            pending.extend(children(identity.pid).into_iter().filter_map(Identity::of));
            frozen.tree.push(identity);
        }
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for identity in self.tree.iter().rev() {
            identity.signal(Signal::CONT);
        }
    }
}

/// Injects the faults of `seed` for `length` into the platform of a state folder, then waits until every process is ready.
/// Signals only processes that the run file names, and their descendants. Nothing stays frozen when this is dropped.
///
/// # Errors
/// When the platform exits, or a process does not get ready.
pub(crate) async fn run(state: &StateDir, seed: u64, length: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    let processes = RunFile::running(state)?.processes;
    let names = processes.into_iter().filter(|entry| entry.kind != SPARED).map(|entry| entry.name);
    let mut frozen: Vec<Frozen> = Vec::new();
    for fault in Faults::new(seed, names).take_while(|fault| fault.at < length) {
        wait_until(fault.at, &mut frozen, began).await;
        let run = RunFile::running(state)?;
        frozen.extend(inject(&fault, run.select(&fault.process).find_map(alive)));
    }
    wait_until(length, &mut frozen, began).await;
    frozen.drain(..).for_each(|frozen| resume(frozen, began));
    wait_until_ready(state).await
}

fn alive(entry: &Entry) -> Option<&Identity> {
    entry.identity.as_ref().filter(|identity| identity.is_alive())
}

/// What stays frozen after it.
fn inject(fault: &Fault, identity: Option<&Identity>) -> Option<Frozen> {
    let Fault { at, process, kind } = fault;
    let Some(identity) = identity else {
        print(*at, format_args!("{process} is not running: skipped"));
        return None;
    };
    match kind {
        Kind::Kill => {
            print(*at, format_args!("kill {process} (PID {})", identity.pid));
            identity.signal(KILL);
            None
        }
        Kind::Freeze(length) => {
            let seconds = length.as_secs_f64();
            print(*at, format_args!("freeze {process} (PID {}) for {seconds:.1} s", identity.pid));
            Some(Frozen::new(process, *at + *length, identity))
        }
    }
}

fn resume(frozen: Frozen, began: Instant) {
    print(began.elapsed(), format_args!("resume {}", frozen.name));
}

/// Sleeps until `at` and meanwhile resumes each process on time.
async fn wait_until(at: Duration, frozen: &mut Vec<Frozen>, began: Instant) {
    while let Some(due) = frozen.iter().map(|frozen| frozen.until).min().filter(|due| *due <= at) {
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        frozen.extract_if(.., |frozen| frozen.until <= due).for_each(|frozen| resume(frozen, began));
    }
    tokio::time::sleep(at.saturating_sub(began.elapsed())).await;
}

async fn wait_until_ready(state: &StateDir) -> anyhow::Result<()> {
    let until = Instant::now() + READY_LIMIT;
    loop {
        let mut unready = None;
        for entry in RunFile::running(state)?.processes {
            let is_ready = match entry.ports.get("admin") {
                Some(port) => probe::readyz(*port).await.is_ok(),
                None => entry.phase == Phase::Ready,
            };
            if alive(&entry).is_none() || !is_ready {
                unready = Some(entry.name);
            }
        }
        match unready {
            None => return Ok(()),
            Some(name) if Instant::now() >= until => {
                bail!("{name} is not ready {READY_LIMIT:?} after the last fault")
            }
            Some(_) => tokio::time::sleep(READY_POLL).await,
        }
    }
}

fn print(at: Duration, event: std::fmt::Arguments<'_>) {
    progress::say(format_args!("{:>7.1} s  {event}", at.as_secs_f64()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::keeper::{DEATHS_WITHIN, RESTARTS_MAX};

    const NAMES: [&str; 3] = ["postgres", "nats", "orders-1"];

    fn faults(seed: u64) -> Vec<Fault> {
        Faults::new(seed, NAMES.map(str::to_owned)).take(2_000).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_faults() {
        assert_eq!(faults(7), faults(7));
        assert_ne!(faults(7), faults(8));
    }

    #[test]
    fn a_process_rests_between_faults_so_long_that_up_does_not_give_up_on_it() {
        let all = faults(1);
        for name in NAMES {
            let own: Vec<&Fault> = all.iter().filter(|fault| fault.process == name).collect();
            assert!(own.iter().any(|fault| fault.kind == Kind::Kill));
            assert!(own.iter().any(|fault| fault.kind != Kind::Kill));
            for pair in own.windows(2) {
                assert!(pair[1].at >= pair[0].at + pair[0].kind.lasts() + REST, "{pair:?}");
            }
            // Half of the deaths that `up` tolerates is left to processes that die for reasons of their own.
            let deaths = |from: Duration| {
                let kills = own.iter().filter(|fault| fault.kind == Kind::Kill);
                kills.filter(|fault| (from..from + DEATHS_WITHIN).contains(&fault.at)).count()
            };
            let deaths_max = own.iter().map(|fault| deaths(fault.at)).max().unwrap();
            assert!(deaths_max <= RESTARTS_MAX as usize / 2, "{deaths_max}");
        }
    }

    #[test]
    fn a_frozen_process_hangs_with_its_children_until_it_is_dropped() {
        let is_frozen = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        };
        let wait_for = |state: &dyn Fn() -> bool| {
            let until = Instant::now() + Duration::from_secs(60);
            while !state() {
                assert!(Instant::now() < until);
                std::thread::yield_now();
            }
        };
        let mut shell = std::process::Command::new("sh").args(["-c", "sleep 600; true"]).spawn().unwrap();
        let pid = shell.id();
        // Until the child runs its own program: a shell that is in vfork(2) meanwhile cannot be frozen.
        let runs_sleep = |child: &u32| {
            std::fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name == "sleep\n")
        };
        wait_for(&|| children(pid).iter().any(runs_sleep));
        let child = children(pid)[0];

        let frozen = Frozen::new("shell", Duration::ZERO, &Identity::of(pid).unwrap());
        wait_for(&|| is_frozen(pid) && is_frozen(child));
        drop(frozen);
        wait_for(&|| !is_frozen(pid) && !is_frozen(child));
        Identity::of(child).unwrap().signal(KILL);
        shell.kill().unwrap();
        shell.wait().unwrap();
    }
}
