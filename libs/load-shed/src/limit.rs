//! How many calls at a time are good: a plain calculation over windows of samples, which knows no clock.
//!
//! The gradient is that of Netflix's concurrency-limits (`Gradient2Limit`): latency now against latency without a
//! queue, at most halved, plus room for √limit. Gradient2 lets the baseline follow a long average, and so takes a
//! queue that stands for long for the normal state. Here the baseline is *probed* as in Envoy's adaptive concurrency
//! filter: now and then some windows run at half the limit, where there is no queue, and say what is normal.

use crate::Limits;

/// Latency up to this multiple of the baseline is no queue, but noise.
const TOLERANCE: f64 = 1.2;
/// The share of a newly calculated value in the next one, for the limit and for the baseline.
const SMOOTHING: f64 = 0.2;
/// One window never asks for less than this share of the limit.
const SHRINK_MIN: f64 = 0.5;
/// Regular windows between two probes: at the usual 100 ms about five seconds.
const PROBE_EVERY: u32 = 50;
/// The same after a probe that found the baseline too high, because then the limit was too high as well.
const PROBE_AGAIN: u32 = 10;

/// What was seen in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Samples {
    /// Mean latency of the calls that succeeded, in nanoseconds; `None` if there were none.
    pub mean_ns: Option<f64>,
    /// How many succeeded.
    pub count: u32,
    /// How many failed because there was too much to do.
    pub overloads: u32,
    /// The most calls at a time.
    pub peak: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// So many windows until the next probe.
    Steady { windows_left: u32 },
    /// The limit is halved; so many calls that were admitted before have yet to end, whose latency is that of before.
    Settling { calls_left: u32 },
    /// The limit is halved and what is measured is the baseline.
    Measuring,
}

/// The adaptive limit.
#[derive(Debug)]
pub(crate) struct Limit {
    bounds: Limits,
    /// The limit outside of probes, between the bounds. A fraction, or small limits could never grow.
    aim: f64,
    /// The largest `aim` since the last probe.
    highest: f64,
    baseline_ns: Option<f64>,
    phase: Phase,
}

impl Limit {
    pub(crate) fn new(bounds: Limits) -> Self {
        let aim = f64::from(bounds.initial);
        // The very first windows are a probe: before them nothing is known.
        Self { bounds, aim, highest: aim, baseline_ns: None, phase: Phase::Settling { calls_left: 0 } }
    }

    /// Calls at a time from now on.
    pub(crate) fn current(&self) -> u32 {
        let aim = if matches!(self.phase, Phase::Steady { .. }) { self.aim } else { self.aim / 2.0 };
        (aim as u32).clamp(self.bounds.min, self.bounds.max)
    }

    /// What a call takes when it does not wait for others, as far as known; in nanoseconds.
    pub(crate) fn baseline_ns(&self) -> Option<f64> {
        self.baseline_ns
    }

    /// Other bounds; what was learned stays.
    pub(crate) fn set_bounds(&mut self, bounds: Limits) {
        self.bounds = bounds;
        self.set_aim(self.aim);
        self.highest = self.aim;
    }

    /// Learns from a window that is over.
    pub(crate) fn learn(&mut self, samples: &Samples) {
        match (self.phase, samples.mean_ns) {
            (Phase::Settling { calls_left }, _) => self.settle(calls_left, samples),
            (Phase::Measuring, Some(mean)) => self.end_probe(mean),
            (Phase::Steady { windows_left }, Some(mean)) => self.adapt(mean, samples.peak, windows_left),
            (Phase::Measuring | Phase::Steady { .. }, None) => {}
        }
        self.back_off(samples);
    }

    fn adapt(&mut self, mean: f64, peak: u32, windows_left: u32) {
        let baseline = *self.baseline_ns.get_or_insert(mean);
        if peak <= self.current() / 2 {
            // Half of the slots stood free: a probe that cost nothing.
            self.follow(mean);
            self.phase = Phase::Steady { windows_left: PROBE_EVERY };
            return;
        }
        if mean < baseline {
            self.follow(mean);
        }
        if is_near(peak, self.current()) {
            let gradient = (TOLERANCE * baseline / mean).clamp(SHRINK_MIN, 1.0);
            let wanted = self.aim * gradient + self.aim.sqrt();
            self.set_aim(self.aim + SMOOTHING * (wanted - self.aim));
        }
        self.highest = self.highest.max(self.aim);
        // Halved since the last probe: either there is a queue, or calls have become slower for good. Only a probe
        // can tell, and without it the limit would fall to its minimum.
        let doubtful = self.aim < self.highest / 2.0;
        self.phase = match windows_left.checked_sub(1) {
            Some(windows_left) if !doubtful => Phase::Steady { windows_left },
            _ => Phase::Settling { calls_left: peak },
        };
    }

    fn settle(&mut self, calls_left: u32, samples: &Samples) {
        let ended = samples.count + samples.overloads;
        self.phase = match calls_left.saturating_sub(ended) {
            0 => Phase::Measuring,
            calls_left => Phase::Settling { calls_left },
        };
    }

    fn end_probe(&mut self, mean: f64) {
        let was_too_high = self.baseline_ns.is_none_or(|before| mean * TOLERANCE < before);
        self.baseline_ns = Some(mean);
        self.highest = self.aim;
        self.phase = Phase::Steady { windows_left: if was_too_high { PROBE_AGAIN } else { PROBE_EVERY } };
    }

    /// A call that timed out says nothing about the latency, but that there are too many.
    fn back_off(&mut self, samples: &Samples) {
        if samples.overloads > 0 {
            let share = f64::from(samples.overloads) / f64::from(samples.overloads + samples.count);
            self.set_aim(self.aim * (1.0 - share).max(SHRINK_MIN));
        }
    }

    fn follow(&mut self, mean: f64) {
        self.baseline_ns = self.baseline_ns.map(|before| before + SMOOTHING * (mean - before));
    }

    fn set_aim(&mut self, aim: f64) {
        self.aim = aim.clamp(f64::from(self.bounds.min), f64::from(self.bounds.max));
    }
}

/// Whether so many calls say anything about the limit: at least four fifths of it.
fn is_near(peak: u32, limit: u32) -> bool {
    u64::from(peak) * 5 >= u64::from(limit) * 4
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod simulation;
#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests;
