//! Whether a callee hangs whose callers do not wait long enough to see it.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use stampede_deadline::Moment;

use crate::sync::{AtomicU64, Mutex};

/// In the place of the time of an answer: it came immediately, so the clock was not read.
const AT_ONCE: u64 = u64::MAX;

/// A call that waited for this, or for a quarter of what is a hang, was not in a hurry.
const PATIENT: Duration = Duration::from_secs(1);

/// How long calls have waited without any answer of the callee.
///
/// One call that its caller ends proves nothing: with little enough time any client could open a circuit. Many of them do,
/// as soon as there was no answer for as long as a whole call may take. So the stretches of waiting since the last answer
/// are added up, none of them twice; a break longer than the circuit's memory ends the sum. Calls of callers in a hurry add
/// nothing.
pub(crate) struct Silence {
    /// When the last answer came, for every lane on a cache line of its own.
    heard: Box<[CachePadded<AtomicU64>]>,
    sum: Mutex<Sum>,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    waited: Duration,
    /// Up to when it was added up.
    until: Moment,
}

impl Silence {
    pub fn new(lanes: usize) -> Self {
        let never = |_| CachePadded::new(AtomicU64::new(0));
        Self { heard: (0..lanes).map(never).collect(), sum: Mutex::new(Sum::default()) }
    }

    /// The callee answered: now, or immediately.
    #[inline]
    pub fn end(&self, lane: usize, now: Option<Moment>) {
        let heard = &*self.heard[lane];
        if let Some(now) = now {
            heard.store(now.as_nanos(), Ordering::Relaxed);
        } else if heard.load(Ordering::Relaxed) != AT_ONCE {
            heard.store(AT_ONCE, Ordering::Relaxed);
        }
    }

    /// A call has no answer at `now`; it waited since then, or not at all. Whether the callee hangs: calls have waited for
    /// `hangs_after` without any answer. Never, if this caller was in a hurry.
    #[cold]
    pub fn is_hang(
        &self,
        since: Option<Moment>,
        now: Moment,
        hangs_after: Duration,
        memory: Option<Duration>,
    ) -> bool {
        if since.is_some_and(|since| now.since(since) < PATIENT.min(hangs_after / 4)) {
            return false;
        }
        let since = since.unwrap_or(now);
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = self.heard.iter().map(|heard| Self::time_of(heard, now)).max().unwrap_or_default();
        // Calls in flight may have begun a whole call ago, and are not counted yet.
        let is_old = memory.is_some_and(|memory| now > sum.until + memory + hangs_after);
        if heard > sum.until || is_old {
            *sum = Sum { waited: Duration::ZERO, until: heard.max(sum.until) };
        }
        let from = since.max(sum.until);
        if now > from {
            *sum = Sum { waited: sum.waited + now.since(from), until: now };
        }
        sum.waited >= hangs_after
    }

    fn time_of(heard: &AtomicU64, now: Moment) -> Moment {
        let at = heard.load(Ordering::Relaxed);
        if at != AT_ONCE {
            return Moment::from_nanos(at);
        }
        heard.store(now.as_nanos(), Ordering::Relaxed);
        now
    }
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const WINDOW: Option<Duration> = Some(Duration::from_secs(1));

    fn at(millis: u32) -> Moment {
        Moment::default() + millis * MS
    }

    /// Whether the silence lasts `millis` after a call that waited from `since` to `now`.
    fn is(silence: &Silence, millis: u32, since: u32, now: u32) -> bool {
        silence.is_hang(Some(at(since)), at(now), millis * MS, WINDOW)
            && !silence.is_hang(None, at(now), (millis + 1) * MS, WINDOW)
    }

    #[test]
    fn stretches_of_waiting_are_added_up_and_none_of_them_twice() {
        let silence = Silence::new(2);
        assert!(is(&silence, 30, 70, 100));
        assert!(is(&silence, 40, 60, 110), "forty of them were counted");
        assert!(is(&silence, 40, 85, 105), "a thread that comes late");
        assert!(is(&silence, 60, 480, 500), "no call waited in between");
        assert!(silence.is_hang(None, at(1_500), 60 * MS, WINDOW), "a call that did not wait adds nothing");
        assert!(is(&silence, 10, 1_501, 1_511), "the rest is forgotten");
        assert!(silence.is_hang(Some(at(9_000)), at(9_010), 20 * MS, None), "but without a window nothing");
    }

    #[test]
    fn silence_begins_with_the_last_answer() {
        let silence = Silence::new(2);
        assert!(is(&silence, 90, 10, 100));
        silence.end(1, Some(at(120)));
        silence.end(0, Some(at(110)));
        assert!(is(&silence, 30, 100, 150));
        silence.end(0, None);
        assert!(is(&silence, 0, 100, 200), "its time was not read");
        assert!(is(&silence, 30, 100, 230));
    }

    #[test]
    fn a_caller_in_a_hurry_is_left_out() {
        let silence = Silence::new(1);
        let waits = |millis, now| silence.is_hang(Some(at(now - millis)), at(now), 100 * MS, WINDOW);
        (1..=100).for_each(|n| assert!(!waits(24, 100 + 24 * n)));
        (1..=3).for_each(|n| assert!(!waits(25, 5_000 + 25 * n)));
        assert!(waits(25, 5_100) && !waits(24, 5_124));
        let silence = Silence::new(1);
        let long = |millis, now| silence.is_hang(Some(at(now - millis)), at(now), 30_000 * MS, None);
        assert!(!long(999, 60_000) && !long(29_900, 90_000) && long(1_000, 91_000));
    }
}
