//! How many calls at a time are good: a plain calculation over windows of samples, which knows no clock.
//!
//! The gradient is that of Netflix's concurrency-limits (`Gradient2Limit`): latency now against latency without a
//! queue, at most halved, plus room for √limit. Gradient2 lets the baseline follow a long average, and so takes a
//! queue that stands for long for the normal state. Here the baseline is *probed* as in Envoy's adaptive concurrency
//! filter: some windows run at half the limit, where there is no queue, and measure what is normal.
//!
//! Envoy probes by the clock, and sheds healthy traffic for it. Here a probe needs a reason: the limit is reached, and
//! calls take longer or time out more often than is normal. As long as the limit is not reached it delays no call, so
//! there is nothing to decide, and the baseline follows what is seen: quickly where half of the slots stand free, and
//! otherwise so slowly that a queue fills the limit before it could be taken for normal.

use crate::Limits;

/// Latency up to this multiple of the baseline is no queue, but noise.
const TOLERANCE: f64 = 1.2;
/// The share of a newly calculated value in the next one, for the limit and for what is normal.
const SMOOTHING: f64 = 0.2;
/// The same for what is normal while some slots are free, but not half of them: a tenth in a second.
const DRIFT: f64 = 0.01;
/// One window never asks for less than this share of the limit.
const SHRINK_MIN: f64 = 0.5;
/// Windows under pressure until a probe, about five seconds at the usual 100 ms; others are set off against them.
const PROBE_AFTER: u32 = 50;
/// The same as long as the baseline may be a queue: at first, and after a probe that found it too high.
const PROBE_AGAIN: u32 = 10;
/// Timeouts are a sign of overload when their share is more than this many times the normal one.
const OVERLOADS_TOLERANCE: f64 = 2.0;
/// A larger share of timeouts is never normal.
const OVERLOADS_NORMAL_MAX: f64 = 0.4;

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

impl Samples {
    /// The share of overloads in all that ended.
    fn overload_share(&self) -> f64 {
        let ended = f64::from(self.overloads) + f64::from(self.count);
        if ended > 0.0 { f64::from(self.overloads) / ended } else { 0.0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Windows under pressure until the next probe.
    Steady { pressed_left: u32 },
    /// The limit is halved; so many calls that were admitted before have yet to end, whose latency is that of before.
    Settling { calls_left: u32 },
    /// The limit is halved and what is measured is normal.
    Measuring,
}

/// What is seen where no call waits for another.
#[derive(Clone, Copy, Debug)]
struct Normal {
    mean_ns: f64,
    /// The share of calls that time out whatever the limit.
    overload_share: f64,
}

impl Normal {
    fn new(mean_ns: f64, samples: &Samples) -> Self {
        Self { mean_ns, overload_share: samples.overload_share().min(OVERLOADS_NORMAL_MAX) }
    }

    fn follow(&mut self, now: Self, smoothing: f64) {
        self.mean_ns += smoothing * (now.mean_ns - self.mean_ns);
        self.overload_share += smoothing * (now.overload_share - self.overload_share);
    }
}

/// The adaptive limit.
#[derive(Debug)]
pub(crate) struct Limit {
    bounds: Limits,
    /// The limit outside of probes, between the bounds. A fraction, or small limits could never grow.
    aim: f64,
    /// The largest `aim` since the last probe.
    highest: f64,
    normal: Option<Normal>,
    phase: Phase,
}

impl Limit {
    pub(crate) fn new(bounds: Limits) -> Self {
        let aim = f64::from(bounds.initial);
        let phase = Phase::Steady { pressed_left: PROBE_AGAIN };
        Self { bounds, aim, highest: aim, normal: None, phase }
    }

    /// Calls at a time from now on.
    pub(crate) fn current(&self) -> u32 {
        let aim = if matches!(self.phase, Phase::Steady { .. }) { self.aim } else { self.aim / 2.0 };
        (aim as u32).clamp(self.bounds.min, self.bounds.max)
    }

    /// What a call takes when it does not wait for others, as far as known; in nanoseconds.
    pub(crate) fn baseline_ns(&self) -> Option<f64> {
        self.normal.map(|normal| normal.mean_ns)
    }

    /// Other bounds; what was learned stays.
    pub(crate) fn set_bounds(&mut self, bounds: Limits) {
        self.bounds = bounds;
        self.set_aim(self.aim);
        self.highest = self.aim;
    }

    /// Learns from a window that is over.
    pub(crate) fn learn(&mut self, samples: &Samples) {
        // Timeouts of calls that were admitted before a probe are no news, and those next to free slots have another cause.
        let is_telling = !matches!(self.phase, Phase::Settling { .. }) && samples.peak > self.current() / 2;
        match (self.phase, samples.mean_ns) {
            (Phase::Settling { calls_left }, _) => self.settle(calls_left, samples),
            (Phase::Measuring, Some(mean)) => self.end_probe(Normal::new(mean, samples)),
            (Phase::Steady { pressed_left }, Some(mean)) => {
                self.adapt(Normal::new(mean, samples), samples, pressed_left);
            }
            (Phase::Measuring | Phase::Steady { .. }, None) => {}
        }
        if is_telling {
            self.back_off(samples);
        }
    }

    fn adapt(&mut self, now: Normal, samples: &Samples, pressed_left: u32) {
        let limit = self.current();
        let is_reached = samples.peak >= limit;
        let Some(normal) = &mut self.normal else {
            // Nothing was measured yet, and if the limit is reached there may be a queue.
            if is_reached {
                self.probe(samples);
            } else {
                self.normal = Some(now);
            }
            return;
        };
        if samples.peak <= limit / 2 {
            // Half of the slots stood free: a probe that cost nothing.
            normal.follow(now, SMOOTHING);
            self.phase = Phase::Steady { pressed_left: PROBE_AFTER };
            return;
        }
        if !is_reached {
            normal.follow(now, DRIFT);
        } else if now.mean_ns < normal.mean_ns {
            normal.mean_ns += SMOOTHING * (now.mean_ns - normal.mean_ns);
        }
        let tolerated = TOLERANCE * normal.mean_ns;
        let is_pressed = is_reached && (now.mean_ns > tolerated || self.excess(samples) > 0.0);
        if is_near(samples.peak, limit) {
            let gradient = (tolerated / now.mean_ns).clamp(SHRINK_MIN, 1.0);
            let wanted = self.aim * gradient + self.aim.sqrt();
            // One that is not reached delays no call: calls are slow for another reason than their number.
            if is_reached || wanted > self.aim {
                self.set_aim(self.aim + SMOOTHING * (wanted - self.aim));
            }
        }
        self.highest = self.highest.max(self.aim);
        // Halved since the last probe: either there is a queue, or calls have become slower for good. Only a probe
        // can tell, and without it the limit would fall to its minimum.
        let doubtful = self.aim < self.highest / 2.0;
        let left =
            if is_pressed { pressed_left.checked_sub(1) } else { Some(PROBE_AFTER.min(pressed_left + 1)) };
        match left {
            Some(pressed_left) if !doubtful => self.phase = Phase::Steady { pressed_left },
            _ => self.probe(samples),
        }
    }

    fn probe(&mut self, samples: &Samples) {
        self.phase = Phase::Settling { calls_left: samples.peak };
    }

    fn settle(&mut self, calls_left: u32, samples: &Samples) {
        let ended = samples.count + samples.overloads;
        self.phase = match calls_left.saturating_sub(ended) {
            0 => Phase::Measuring,
            calls_left => Phase::Settling { calls_left },
        };
    }

    fn end_probe(&mut self, mut now: Normal) {
        let was_too_high = self.baseline_ns().is_none_or(|before| now.mean_ns * TOLERANCE < before);
        // Calls that hang end later than a probe, so what it does not see may yet be there.
        let before = self.normal.map_or(0.0, |normal| normal.overload_share);
        now.overload_share = now.overload_share.max(before - SMOOTHING * (before - now.overload_share));
        self.normal = Some(now);
        self.highest = self.aim;
        self.phase = Phase::Steady { pressed_left: if was_too_high { PROBE_AGAIN } else { PROBE_AFTER } };
    }

    /// A call that timed out has no latency, but is a sign that there are too many; unless as many time out where there are
    /// few.
    fn back_off(&mut self, samples: &Samples) {
        self.set_aim(self.aim * (1.0 - self.excess(samples)).max(SHRINK_MIN));
    }

    /// The share of overloads that is more than normal.
    fn excess(&self, samples: &Samples) -> f64 {
        let (share, normal) =
            (samples.overload_share(), self.normal.map_or(0.0, |normal| normal.overload_share));
        if share > OVERLOADS_TOLERANCE * normal { share - normal } else { 0.0 }
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
