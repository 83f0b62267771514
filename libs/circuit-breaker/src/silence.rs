//! Whether a callee hangs whose callers do not wait long enough to see it.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use stampede_deadline::Moment;

use crate::sync::{AtomicU64, Mutex};

/// In the place of the time of an answer: there was one, for which nobody had to wait or look at the clock.
const AT_ONCE: u64 = u64::MAX;

/// How long a callee has answered nobody although somebody waited.
///
/// One call that its caller ends proves nothing: with little enough time any client could open a circuit. Many of them do,
/// as soon as nobody has had an answer for as long as a whole call may take. So the stretches of waiting since the last
/// answer are added up, none of them twice, unless nobody waits for longer than the circuit remembers. A call with less
/// time than answers take adds nothing.
pub(crate) struct Silence {
    /// When the last answer came, for every lane on a cache line of its own.
    heard: Box<[CachePadded<AtomicU64>]>,
    /// How long answers take, in nanoseconds and roughly; zero before the first that had to be waited for.
    usual: AtomicU64,
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
        Self {
            heard: (0..lanes).map(never).collect(),
            usual: AtomicU64::new(0),
            sum: Mutex::new(Sum::default()),
        }
    }

    /// The callee answered; `waited` says since when and until when a call had to wait for it.
    #[inline]
    pub fn end(&self, lane: usize, waited: Option<(Moment, Moment)>) {
        let heard = &*self.heard[lane];
        if let Some((since, now)) = waited {
            heard.store(now.as_nanos(), Ordering::Relaxed);
            self.follow(now.as_nanos() - since.as_nanos().min(now.as_nanos()));
        } else if heard.load(Ordering::Relaxed) != AT_ONCE {
            heard.store(AT_ONCE, Ordering::Relaxed);
        }
    }

    /// A call has no answer at `now`; it waited since then, or not at all. Says for how long nobody has had one; `None` if
    /// this call had too little time to tell.
    #[cold]
    pub fn extend(&self, since: Option<Moment>, now: Moment, memory: Option<Duration>) -> Option<Duration> {
        let usual = Duration::from_nanos(self.usual.load(Ordering::Relaxed));
        if since.is_some_and(|since| now.since(since) < usual) {
            return None;
        }
        let since = since.unwrap_or(now);
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = self.heard.iter().map(|heard| Self::time_of(heard, now)).max().unwrap_or_default();
        if heard > sum.until || memory.is_some_and(|memory| since > sum.until + memory) {
            *sum = Sum { waited: Duration::ZERO, until: heard.max(sum.until) };
        }
        let from = since.max(sum.until);
        if now > from {
            *sum = Sum { waited: sum.waited + now.since(from), until: now };
        }
        Some(sum.waited)
    }

    fn time_of(heard: &AtomicU64, now: Moment) -> Moment {
        let at = heard.load(Ordering::Relaxed);
        if at != AT_ONCE {
            return Moment::from_nanos(at);
        }
        heard.store(now.as_nanos(), Ordering::Relaxed);
        now
    }

    /// Moves what is usual an eighth of the way to an answer that took less than half of it or more than twice as long.
    /// Others write nothing, so threads do not hand the word to and fro.
    #[inline]
    fn follow(&self, lasted: u64) {
        let usual = self.usual.load(Ordering::Relaxed);
        if usual == 0 {
            self.usual.store(lasted, Ordering::Relaxed);
        } else if !(usual / 2..=usual.saturating_mul(2)).contains(&lasted) {
            self.usual.store(usual - usual / 8 + lasted / 8, Ordering::Relaxed);
        }
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

    #[test]
    fn stretches_of_waiting_are_added_up_and_none_of_them_twice() {
        let silence = Silence::new(2);
        let extend = |since, now| silence.extend(Some(at(since)), at(now), WINDOW);
        assert_eq!(extend(70, 100), Some(30 * MS));
        assert_eq!(extend(60, 110), Some(40 * MS), "forty of them were counted");
        assert_eq!(extend(85, 105), Some(40 * MS), "a thread that comes late");
        assert_eq!(extend(490, 500), Some(50 * MS), "nobody waited in between");
        assert_eq!(silence.extend(None, at(1_500), WINDOW), Some(50 * MS), "who did not wait adds nothing");
        assert_eq!(extend(1_501, 1_511), Some(10 * MS), "the rest is forgotten");
        assert_eq!(
            silence.extend(Some(at(9_000)), at(9_010), None),
            Some(20 * MS),
            "but without a window nothing"
        );
    }

    #[test]
    fn silence_begins_with_the_last_answer() {
        let silence = Silence::new(2);
        let extend = |since, now| silence.extend(Some(at(since)), at(now), WINDOW);
        assert_eq!(extend(10, 100), Some(90 * MS));
        silence.end(1, Some((at(95), at(120))));
        silence.end(0, Some((at(95), at(110))));
        assert_eq!(extend(100, 150), Some(30 * MS));
        silence.end(0, None);
        assert_eq!(extend(100, 200), Some(Duration::ZERO), "nobody knows when exactly");
        assert_eq!(extend(100, 230), Some(30 * MS));
    }

    #[test]
    fn a_call_with_less_time_than_answers_take_says_nothing() {
        let silence = Silence::new(1);
        let answers = |millis, now| silence.end(0, Some((at(now - millis), at(now))));
        let extend = |millis, now| silence.extend(Some(at(now - millis)), at(now), None);
        answers(40, 500);
        assert_eq!((extend(39, 1_000), extend(40, 1_000)), (None, Some(40 * MS)));
        (0..50).for_each(|_| answers(4, 1_500));
        assert_eq!(extend(10, 2_000), Some(10 * MS), "answers have become faster");
        (0..50).for_each(|_| answers(400, 2_500));
        assert_eq!(extend(100, 3_000), None, "and slower");
    }
}
