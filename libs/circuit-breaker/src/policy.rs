//! When a circuit opens, for how long, and what closes it.

use std::time::Duration;

use crate::tally::{CONSECUTIVE, COUNT_MAX, Scale};
use crate::{Counts, Outcome};

const WINDOW_MIN: Duration = Duration::from_millis(10);
const WINDOW_MAX: Duration = Duration::from_secs(3_600);
const OPEN_MIN: Duration = Duration::from_millis(1);

/// A policy that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// No failure would be enough, or more than can be counted.
    #[error("a circuit opens after 1 to 10000 consecutive failures")]
    Consecutive,
    /// Not a share.
    #[error("the failure rate must be between 1 and 100 percent")]
    Percent,
    /// Nothing would be judged, or more than is counted.
    #[error("the failure rate is judged from 1 to 10000 calls on")]
    MinCalls,
    /// Its buckets would be too short to hold anything, or too long for anybody to wait.
    #[error("the window must be between 10 ms and an hour")]
    Window,
    /// The callee would get no rest.
    #[error("a circuit stays open for at least one millisecond")]
    OpenTooShort,
    /// The opening cannot grow from one to the other.
    #[error("the first opening must not be longer than the longest")]
    OpenAboveMax,
    /// The circuit could never close.
    #[error("a half-open circuit needs at least one probe, and one success to close")]
    NoProbe,
}

/// What opens a closed circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trip(Rule);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Consecutive { failures: u32 },
    Rate { percent: u32, min_calls: u32, scale: Scale },
}

impl Trip {
    /// So many failures with no success between them. Blind where one of two replicas is down; costs no clock.
    ///
    /// # Errors
    /// [`InvalidPolicy::Consecutive`] unless 1 ≤ `failures` ≤ 10 000.
    pub fn consecutive(failures: u32) -> Result<Self, InvalidPolicy> {
        if !(1..=COUNT_MAX).contains(&failures) {
            return Err(InvalidPolicy::Consecutive);
        }
        Ok(Self(Rule::Consecutive { failures }))
    }

    /// At least `percent` of the calls of the last `window` failed, and there were at least `min_calls` of them. It is
    /// judged whenever a call fails. The window rolls in 8 to 16 buckets and is exact to one of them.
    ///
    /// # Errors
    /// [`InvalidPolicy`] unless 1 ≤ `percent` ≤ 100, 1 ≤ `min_calls` ≤ 10 000 and 10 ms ≤ `window` ≤ 1 h.
    pub fn rate(percent: u32, min_calls: u32, window: Duration) -> Result<Self, InvalidPolicy> {
        if !(1..=100).contains(&percent) {
            Err(InvalidPolicy::Percent)
        } else if !(1..=COUNT_MAX).contains(&min_calls) {
            Err(InvalidPolicy::MinCalls)
        } else if !(WINDOW_MIN..=WINDOW_MAX).contains(&window) {
            Err(InvalidPolicy::Window)
        } else {
            Ok(Self(Rule::Rate { percent, min_calls, scale: Scale::of(window) }))
        }
    }

    pub(crate) fn scale(&self) -> Scale {
        match self.0 {
            Rule::Consecutive { .. } => CONSECUTIVE,
            Rule::Rate { scale, .. } => scale,
        }
    }

    /// For how long calls are remembered; failures in a row have no window.
    pub(crate) fn window(&self) -> Option<Duration> {
        match self.0 {
            Rule::Consecutive { .. } => None,
            Rule::Rate { scale, .. } => Some(scale.window()),
        }
    }

    pub(crate) fn is_due(&self, counts: Counts) -> bool {
        match self.0 {
            Rule::Consecutive { failures } => counts.failures >= failures,
            Rule::Rate { percent, min_calls, .. } => {
                counts.calls >= min_calls && counts.failures * 100 >= counts.calls * percent
            }
        }
    }
}

/// How a circuit behaves; made from what trips it, with a default for everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(crate) trip: Trip,
    open_base: Duration,
    open_max: Duration,
    pub(crate) probes_max: u32,
    pub(crate) successes_to_close: u32,
    pub(crate) when_dropped: Outcome,
    pub(crate) hangs_after: Option<Duration>,
}

impl Policy {
    /// Opens for 1 s at first and a minute at most, probes with one call at a time, closes after one success, and
    /// takes a dropped call for neutral.
    pub fn new(trip: Trip) -> Self {
        Self {
            trip,
            open_base: Duration::from_secs(1),
            open_max: Duration::from_secs(60),
            probes_max: 1,
            successes_to_close: 1,
            when_dropped: Outcome::Neutral,
            hangs_after: None,
        }
    }

    /// The circuit opens for `base`, and twice as long after every round of probes that failed, up to `max`.
    ///
    /// # Errors
    /// [`InvalidPolicy`] unless 1 ms ≤ `base` ≤ `max`.
    pub fn open_for(self, base: Duration, max: Duration) -> Result<Self, InvalidPolicy> {
        if base < OPEN_MIN {
            Err(InvalidPolicy::OpenTooShort)
        } else if base > max {
            Err(InvalidPolicy::OpenAboveMax)
        } else {
            Ok(Self { open_base: base, open_max: max, ..self })
        }
    }

    /// A half-open circuit makes at most `at_once` calls at a time, and closes after `successes_to_close` of them.
    ///
    /// # Errors
    /// [`InvalidPolicy::NoProbe`] if one of them is zero.
    pub fn probes(self, at_once: u32, successes_to_close: u32) -> Result<Self, InvalidPolicy> {
        if at_once == 0 || successes_to_close == 0 {
            return Err(InvalidPolicy::NoProbe);
        }
        Ok(Self { probes_max: at_once, successes_to_close, ..self })
    }

    /// What a call that is dropped before its answer counts as. Neutral, where callers leave for reasons of their
    /// own; a failure, where what drops them is a timeout outside of the circuit; unanswered, where it may be either.
    #[must_use]
    pub fn when_dropped(self, outcome: Outcome) -> Self {
        Self { when_dropped: outcome, ..self }
    }

    /// Calls that end [unanswered](Outcome::Unanswered) are failures while calls have waited for `silence` in all since the
    /// last [success](Outcome::Success) or [neutral](Outcome::Neutral) answer. Concurrent waits count once; a break longer
    /// than `silence` and the window together ends the sum. A call that waited for less than a quarter of `silence`, and less
    /// than a second, adds nothing and stays uncounted. Without this setting none are counted.
    #[must_use]
    pub fn hangs_after(self, silence: Duration) -> Self {
        Self { hangs_after: Some(silence), ..self }
    }

    /// How long the circuit stays open after so many failed rounds of probes.
    pub(crate) fn opening(&self, failed_rounds: u32) -> Duration {
        self.open_base.saturating_mul(2_u32.saturating_pow(failed_rounds)).min(self.open_max)
    }

    pub(crate) fn longest_opening(&self) -> Duration {
        self.open_max
    }
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_broken_rule_is_named() {
        assert_eq!(Trip::consecutive(0), Err(InvalidPolicy::Consecutive));
        assert_eq!(Trip::consecutive(10_001), Err(InvalidPolicy::Consecutive));
        assert_eq!(Trip::rate(0, 1, 10 * MS), Err(InvalidPolicy::Percent));
        assert_eq!(Trip::rate(101, 1, 10 * MS), Err(InvalidPolicy::Percent));
        assert_eq!(Trip::rate(1, 0, 10 * MS), Err(InvalidPolicy::MinCalls));
        assert_eq!(Trip::rate(1, 10_001, 10 * MS), Err(InvalidPolicy::MinCalls));
        assert_eq!(Trip::rate(1, 1, 9 * MS), Err(InvalidPolicy::Window));
        assert_eq!(Trip::rate(1, 1, WINDOW_MAX + MS), Err(InvalidPolicy::Window));

        let policy = Policy::new(Trip::consecutive(1).unwrap());
        assert_eq!(policy.open_for(Duration::ZERO, MS), Err(InvalidPolicy::OpenTooShort));
        assert_eq!(policy.open_for(2 * MS, MS), Err(InvalidPolicy::OpenAboveMax));
        assert_eq!(policy.probes(0, 1), Err(InvalidPolicy::NoProbe));
        assert_eq!(policy.probes(1, 0), Err(InvalidPolicy::NoProbe));
    }

    #[test]
    fn the_opening_doubles_up_to_the_longest() {
        let policy = Policy::new(Trip::consecutive(1).unwrap()).open_for(10 * MS, 65 * MS).unwrap();
        assert_eq!(
            [0, 1, 2, 3, 31, 32, u32::MAX].map(|rounds| policy.opening(rounds).as_millis()),
            [10, 20, 40, 65, 65, 65, 65]
        );
    }
}
