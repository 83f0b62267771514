//! The samples of the current window, collected without a lock.

use std::time::Duration;

use crossbeam_utils::CachePadded;
use stampede_deadline::{Moment, nanos};

use crate::limit::Samples;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How long samples are collected before the limit learns from them.
const LENGTH: Duration = Duration::from_millis(100);
/// Fewer say nothing; the window stays open until there are as many.
const SAMPLES_MIN: u64 = 10;
/// As many of one lane close the window early.
const SAMPLES_FULL: u64 = 1 << 15;
/// As many let nobody on before it is closed. What is left of the sixteen bits is for threads that come to that
/// conclusion at the same time.
const SAMPLES_BRIM: u64 = 3 << 14;
/// A longer latency counts as this one, 4.29 s: 2¹⁶ of them fit into the 48 bits of the sum.
const LATENCY_MAX_NS: u64 = u32::MAX as u64;
const COUNT_SHIFT: u32 = 48;
const SUM: u64 = (1 << COUNT_SHIFT) - 1;

/// How long it takes at least until a lane looks again how many calls there are: to look is to read what all threads
/// write. Seldom enough to cost nothing, and a few thousand times in a window.
const LOOK_EVERY_NS: u64 = 20_000;

/// How full the window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// There is room for more.
    Room,
    /// It should be closed early.
    Full,
    /// It must be closed before there are more.
    Brimful,
}

/// A window that is filled.
#[derive(Debug)]
pub(crate) struct Window {
    lanes: Box<[CachePadded<Lane>]>,
    overloads: AtomicU32,
    peak: AtomicU32,
    ends_ns: AtomicU64,
}

/// What is counted by the calls of one lane, so that no thread waits for another one's count.
#[derive(Debug, Default)]
struct Lane {
    /// How many calls succeeded, above the sum of their latencies in nanoseconds.
    successes: AtomicU64,
    look_from_ns: AtomicU64,
}

impl Window {
    pub(crate) fn new(now: Moment, lanes: usize) -> Self {
        Self {
            lanes: (0..lanes).map(|_| CachePadded::default()).collect(),
            overloads: AtomicU32::new(0),
            peak: AtomicU32::new(0),
            ends_ns: AtomicU64::new((now + LENGTH).as_nanos()),
        }
    }

    /// A call succeeded.
    #[inline]
    pub(crate) fn success(&self, lane: usize, latency: Duration) -> Fill {
        let latency = nanos(latency).min(LATENCY_MAX_NS);
        let successes = &self.lanes[lane].successes;
        match count(successes.fetch_add((1 << COUNT_SHIFT) | latency, Ordering::Relaxed)) {
            ..SAMPLES_FULL => Fill::Room,
            SAMPLES_FULL..SAMPLES_BRIM => Fill::Full,
            SAMPLES_BRIM.. => Fill::Brimful,
        }
    }

    /// A call failed because there was too much to do.
    pub(crate) fn overload(&self) -> Fill {
        self.overloads.fetch_add(1, Ordering::Relaxed);
        Fill::Room
    }

    /// Takes note of how many calls there are, if it is time to look. The most are there when one of them ends, so it is
    /// enough to look then.
    #[inline]
    pub(crate) fn look(&self, lane: usize, now: Moment, in_flight: impl FnOnce() -> u32) {
        let look_from_ns = &self.lanes[lane].look_from_ns;
        if now.as_nanos() >= look_from_ns.load(Ordering::Relaxed) {
            look_from_ns.store(now.as_nanos() + LOOK_EVERY_NS, Ordering::Relaxed);
            self.peak.fetch_max(in_flight(), Ordering::Relaxed);
        }
    }

    /// Whether its time is over.
    pub(crate) fn has_ended(&self, now: Moment) -> bool {
        now.as_nanos() >= self.ends_ns.load(Ordering::Relaxed)
    }

    /// How many succeeded and how many were too much, so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let successes = self.lanes.iter().map(|lane| count(lane.successes.load(Ordering::Relaxed))).sum();
        (successes, u64::from(self.overloads.load(Ordering::Relaxed)))
    }

    /// Takes the samples out and opens the next window, if there are enough. One at a time.
    pub(crate) fn close(&self, now: Moment) -> Option<Samples> {
        let (successes, overloads) = self.counts();
        let enough = successes + overloads >= SAMPLES_MIN && self.has_ended(now);
        if !enough && successes < SAMPLES_FULL {
            return None;
        }
        self.ends_ns.store((now + LENGTH).as_nanos(), Ordering::Relaxed);
        let successes = self.lanes.iter().map(|lane| lane.successes.swap(0, Ordering::Relaxed));
        let (count, sum) =
            successes.fold((0, 0), |(calls, sum), lane| (calls + count(lane), sum + (lane & SUM)));
        Some(Samples {
            mean_ns: (count > 0).then(|| sum as f64 / count as f64),
            count: count as u32,
            overloads: self.overloads.swap(0, Ordering::Relaxed),
            peak: self.peak.swap(0, Ordering::Relaxed),
        })
    }
}

fn count(successes: u64) -> u64 {
    successes >> COUNT_SHIFT
}

#[cfg(test)]
#[cfg(stampede_loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests;
