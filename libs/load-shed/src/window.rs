//! The samples of the current window, collected without a lock.

use std::time::Duration;

use stampede_deadline::Moment;

use crate::limit::Samples;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How long samples are collected before the limit learns from them.
const LENGTH: Duration = Duration::from_millis(100);
/// Fewer say nothing; the window stays open until there are as many.
const SAMPLES_MIN: u32 = 10;
/// More do not fit; the window is closed early.
const SAMPLES_FULL: u64 = 1 << 15;
/// A longer latency counts as this one, 4.29 s: 2¹⁶ of them fit into the 48 bits of the sum.
const LATENCY_MAX_NS: u64 = u32::MAX as u64;
const COUNT_SHIFT: u32 = 48;
const SUM: u64 = (1 << COUNT_SHIFT) - 1;

/// A window that is filled.
#[derive(Debug)]
pub(crate) struct Window {
    /// How many calls succeeded, above the sum of their latencies in nanoseconds.
    successes: AtomicU64,
    overloads: AtomicU32,
    peak: AtomicU32,
    ends_ns: AtomicU64,
}

impl Window {
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            successes: AtomicU64::new(0),
            overloads: AtomicU32::new(0),
            peak: AtomicU32::new(0),
            ends_ns: AtomicU64::new((now + LENGTH).as_nanos()),
        }
    }

    /// A call succeeded. `false` if it was not counted, because nobody closes the window that is full.
    pub(crate) fn success(&self, latency: Duration) -> bool {
        // Threads that get past this check together are too few to fill the other half of the sixteen bits.
        if self.successes.load(Ordering::Relaxed) >> COUNT_SHIFT >= SAMPLES_FULL {
            return false;
        }
        let latency = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).min(LATENCY_MAX_NS);
        self.successes.fetch_add(1 << COUNT_SHIFT | latency, Ordering::Relaxed);
        true
    }

    /// A call failed because there was too much to do.
    pub(crate) fn overload(&self) {
        self.overloads.fetch_add(1, Ordering::Relaxed);
    }

    /// So many calls were there at a time. The most are there when one of them ends, so it is enough to look then.
    pub(crate) fn concurrency(&self, in_flight: u32) {
        if in_flight > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(in_flight, Ordering::Relaxed);
        }
    }

    /// Whether somebody should close it; two loads on every call.
    pub(crate) fn is_over(&self, now: Moment) -> bool {
        now.as_nanos() >= self.ends_ns.load(Ordering::Relaxed)
            || self.successes.load(Ordering::Relaxed) >> COUNT_SHIFT >= SAMPLES_FULL
    }

    /// How many succeeded and how many were too much, so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (
            self.successes.load(Ordering::Relaxed) >> COUNT_SHIFT,
            u64::from(self.overloads.load(Ordering::Relaxed)),
        )
    }

    /// Takes the samples out and opens the next window, if there are enough. One at a time.
    pub(crate) fn close(&self, now: Moment) -> Option<Samples> {
        let (successes, overloads) = self.counts();
        if successes + overloads < u64::from(SAMPLES_MIN) || !self.is_over(now) {
            return None;
        }
        self.ends_ns.store((now + LENGTH).as_nanos(), Ordering::Relaxed);
        let successes = self.successes.swap(0, Ordering::Relaxed);
        let (count, sum) = ((successes >> COUNT_SHIFT) as u32, successes & SUM);
        Some(Samples {
            mean_ns: (count > 0).then(|| sum as f64 / f64::from(count)),
            count,
            overloads: self.overloads.swap(0, Ordering::Relaxed),
            peak: self.peak.swap(0, Ordering::Relaxed),
        })
    }
}
