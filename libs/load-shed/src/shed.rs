//! The handle, and what a refusal says.

use std::fmt;
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;

use stampede_deadline::Clock;

use crate::gate::{Admission, Handle};
use crate::sync::Arc;
use crate::{Acquire, CLASSES, Priority, Settings, Snapshot};

/// Why a request was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The queue was full, and nobody in it was less urgent.
    Full,
    /// It waited too long.
    Late,
    /// Somebody more urgent was shed within the interval.
    Outranked,
}

impl Reason {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Full, Self::Late, Self::Outranked];

    /// In a word, for metrics and traces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Late => "late",
            Self::Outranked => "outranked",
        }
    }
}

/// A request was not admitted: there is too much to do. The work was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("overloaded: try again in {} s", .retry_after.as_secs())]
pub struct Shed {
    /// Its class.
    pub class: Priority,
    /// Why.
    pub reason: Reason,
    /// When to come back: whole seconds, at least one, as the header `Retry-After` wants it.
    pub retry_after: Duration,
}

impl Shed {
    /// Who is shed together shall not come back together: the refusals of a process are dealt out over two seconds
    /// for the most urgent class and over five for the least. Multiples of the golden ratio fill an interval more
    /// evenly than random numbers do (D. Knuth, "The Art of Computer Programming", vol. 3, 6.4).
    pub(crate) fn nth(number: u64, class: Priority, reason: Reason) -> Self {
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        let spread = 2 + u64::from(class.level());
        let dealt = (u128::from(number.wrapping_mul(GOLDEN)) * u128::from(spread)) >> 64;
        Self { class, reason, retry_after: Duration::from_secs(1 + dealt as u64) }
    }

    /// Leaves a mark in the trace.
    #[cold]
    fn mark(&self) {
        let Self { class, reason, .. } = self;
        let (class, refused) = (u64::from(class.level()), reason.as_str());
        drop(tracing::info_span!("shed", class, refused, otel.status_code = "ERROR"));
    }
}

/// Decides who may call. Clones share one state: make one for everything that competes for the same resource, and
/// give clones of it to every layer in front of that.
#[derive(Clone)]
pub struct LoadShed {
    pub(crate) handle: Arc<Handle>,
}

/// More cores than this share the lanes in which calls are counted: whoever finds no slot in one looks at them all.
const LANES_MAX: usize = 8;

impl LoadShed {
    /// With nothing measured so far. The clock is [`Clock::system`], or [`Clock::tokio`] in a test that pauses it.
    pub fn new(settings: Settings, clock: Clock) -> Self {
        let lanes = available_parallelism().map_or(1, NonZero::get).min(LANES_MAX);
        Self { handle: Arc::new(Handle::new(settings, clock, lanes)) }
    }

    /// The same through a handle of its own.
    pub(crate) fn apart(&self) -> Self {
        Self { handle: Arc::new(self.handle.apart()) }
    }

    /// A slot, now or when one is free. The place in the queue is taken at once; who drops the future leaves it.
    ///
    /// # Panics
    /// Outside of a tokio runtime, when there is need to wait.
    pub fn acquire(&self, class: Priority) -> Acquire {
        Acquire::new(self.admit(class))
    }

    pub(crate) fn admit(&self, class: Priority) -> Admission {
        let admission = Handle::admit(&self.handle, class);
        if let Admission::Refused(shed) = &admission {
            shed.mark();
        }
        admission
    }

    /// Replaces the settings. A lower limit takes nothing away from calls that run, new ways to wait apply to those
    /// who come.
    pub fn set_settings(&self, settings: Settings) {
        Handle::set_settings(&self.handle, settings);
    }

    /// How things are. It takes the lock of the queue for a moment.
    pub fn snapshot(&self) -> Snapshot {
        self.handle.gate.snapshot()
    }
}

impl fmt::Debug for LoadShed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadShed").field("snapshot", &self.snapshot()).finish()
    }
}

/// How many were shed of each class and for which reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts([[u64; Reason::ALL.len()]; CLASSES]);

impl Counts {
    pub(crate) fn add(&mut self, class: Priority, reason: Reason) {
        self.0[class.index()][reason as usize] += 1;
    }

    pub(crate) fn get(&self, class: Priority, reason: Reason) -> u64 {
        self.0[class.index()][reason as usize]
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().flatten().sum()
    }
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_dealt_out_evenly() {
        for class in [Priority::MOST_URGENT, Priority::LEAST_URGENT] {
            let spread = 2 + usize::from(class.level());
            let mut seconds = vec![0_u32; spread];
            for number in 0..1_000 {
                let wait = Shed::nth(number, class, Reason::Full).retry_after;
                assert_eq!(wait.subsec_nanos(), 0);
                seconds[wait.as_secs() as usize - 1] += 1;
            }
            let fair = 1_000 / spread as u32;
            assert!(seconds.iter().all(|&count| count.abs_diff(fair) <= 5), "{class:?}: {seconds:?}");
        }
    }
}
