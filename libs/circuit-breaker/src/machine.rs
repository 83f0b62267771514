//! The decision: a state machine that is handed the time, and asks for it only where it needs it.
//!
//! Calls of a closed circuit read one word and count, without a lock. Everything that changes the state is done under
//! one, and looked at again there: the circuit may have changed since.

#[cfg(test)]
#[cfg(stampede_loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests;

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crossbeam_utils::CachePadded;
use stampede_deadline::{Moment, nanos};

use crate::sync::{AtomicU64, Mutex, MutexGuard};
use crate::tally::Tally;
use crate::{Change, Counts, Forced, Outcome, Policy, Refused, Snapshot, State, Why};

pub(crate) struct Machine {
    /// A [`Word`], written under the lock only. On a cache line of its own, which stays with every core as long as the
    /// circuit is closed.
    word: CachePadded<AtomicU64>,
    /// When the next probe is due, in nanoseconds; written before the word says open.
    retry_at: AtomicU64,
    tally: Tally,
    slow: Mutex<Slow>,
    on_change: Box<dyn Fn(Change) + Send + Sync>,
}

struct Slow {
    policy: Policy,
    failed_rounds: u32,
    /// On their way, in this half-open generation.
    probes: u32,
    successes: u32,
    opened: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Closed,
    Open,
    HalfOpen,
    ForcedOpen,
    ForcedClosed,
}

/// The mode in the low three bits, the generation above them. Every change of the mode begins a generation, so a call
/// that comes back and finds the number it left with also finds the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u64);

impl Word {
    fn new(mode: Mode, generation: u64) -> Self {
        Self(generation << 3 | mode as u64)
    }

    fn generation(self) -> u64 {
        self.0 >> 3
    }

    fn mode(self) -> Mode {
        match self.0 & 7 {
            0 => Mode::Closed,
            1 => Mode::Open,
            2 => Mode::HalfOpen,
            3 => Mode::ForcedOpen,
            _ => Mode::ForcedClosed,
        }
    }
}

impl Mode {
    fn state(self) -> State {
        match self {
            Self::Closed | Self::ForcedClosed => State::Closed,
            Self::Open | Self::ForcedOpen => State::Open,
            Self::HalfOpen => State::HalfOpen,
        }
    }

    fn forced(self) -> Option<Forced> {
        match self {
            Self::ForcedClosed => Some(Forced::Closed),
            Self::ForcedOpen => Some(Forced::Open),
            Self::Closed | Self::Open | Self::HalfOpen => None,
        }
    }
}

impl Machine {
    /// Closed; counts in so many lanes, at least one.
    pub fn new(policy: Policy, lanes: usize, on_change: Box<dyn Fn(Change) + Send + Sync>) -> Self {
        let slow = Slow { policy, failed_rounds: 0, probes: 0, successes: 0, opened: 0 };
        Self {
            word: CachePadded::new(AtomicU64::new(Word::new(Mode::Closed, 0).0)),
            retry_at: AtomicU64::new(0),
            tally: Tally::new(policy.trip.scale(), lanes),
            slow: Mutex::new(slow),
            on_change,
        }
    }

    pub fn lanes(&self) -> usize {
        self.tally.lanes()
    }

    /// Lets a call pass and says in which generation, or refuses it.
    #[inline]
    pub fn admit(&self, now: impl FnOnce() -> Moment) -> Result<u64, Refused> {
        let word = self.word();
        match word.mode().state() {
            State::Closed => Ok(word.generation()),
            State::Open | State::HalfOpen => self.admit_probe(now()),
        }
    }

    /// What a call would be told now if it were refused; changes nothing.
    #[inline]
    pub fn refusal(&self, now: impl FnOnce() -> Moment) -> Option<Refused> {
        match self.word().mode().state() {
            State::Closed => None,
            State::Open | State::HalfOpen => self.refusal_now(now()),
        }
    }

    /// Takes the outcome of a call that was let pass in `generation`. Outcomes of another one are too late: they are
    /// about a callee that was judged without them.
    #[inline]
    pub fn settle(&self, lane: usize, generation: u64, outcome: Outcome, now: impl Fn() -> Moment) {
        let word = self.word();
        match (word.mode(), outcome) {
            _ if word.generation() != generation => {}
            (Mode::HalfOpen, _) => self.settle_probe(generation, outcome, now()),
            (Mode::Closed, Outcome::Success | Outcome::Failure) => {
                self.tally.record(lane, generation, outcome, &now, || self.is_current(generation));
                if outcome == Outcome::Failure {
                    self.judge(generation, now());
                }
            }
            (Mode::Closed | Mode::Open | Mode::ForcedOpen | Mode::ForcedClosed, _) => {}
        }
    }

    /// The policy that is in force.
    pub fn policy(&self) -> Policy {
        self.lock().policy
    }

    /// Holds the circuit open or closed, or hands it back: from forced open it goes on half-open, from forced closed
    /// it goes on closed with nothing counted.
    pub fn force(&self, forced: Option<Forced>, now: Moment) {
        let slow = &mut *self.lock();
        let mode = self.word().mode();
        match (forced, mode) {
            (Some(Forced::Open), _) if mode != Mode::ForcedOpen => {
                self.change(slow, Mode::ForcedOpen, Why::Forced, now);
            }
            (Some(Forced::Closed), _) if mode != Mode::ForcedClosed => {
                self.change(slow, Mode::ForcedClosed, Why::Forced, now);
            }
            (None, Mode::ForcedOpen) => self.change(slow, Mode::HalfOpen, Why::Released, now),
            (None, Mode::ForcedClosed) => self.change(slow, Mode::Closed, Why::Released, now),
            _ => {}
        }
    }

    /// What was counted stays, unless it was counted in buckets of another width; and an open circuit stays open for as
    /// long as if it had opened with this policy.
    pub fn set_policy(&self, policy: Policy) {
        let slow = &mut *self.lock();
        let before = std::mem::replace(&mut slow.policy, policy);
        let word = self.word();
        if word.mode() == Mode::Closed && !before.trip.scale().counts_like(policy.trip.scale()) {
            self.begin(slow, Mode::Closed, word.generation() + 1);
        }
        let opened_at =
            self.retry_at.load(Ordering::Relaxed).saturating_sub(nanos(before.opening(slow.failed_rounds)));
        let retry_at = opened_at.saturating_add(nanos(policy.opening(slow.failed_rounds)));
        self.retry_at.store(retry_at, Ordering::Relaxed);
    }

    pub fn snapshot(&self, now: Moment) -> Snapshot {
        let slow = self.lock();
        let word = self.word();
        let counts = match word.mode() {
            Mode::Closed => self.tally.counts(word.generation(), slow.policy.trip.scale(), now),
            _ => Counts::default(),
        };
        Snapshot {
            state: word.mode().state(),
            generation: word.generation(),
            forced: word.mode().forced(),
            counts,
            probes: if word.mode() == Mode::HalfOpen { slow.probes } else { 0 },
            opened: slow.opened,
            retry_after: self.refusal_of(&slow, now).map(|refused| refused.retry_after),
        }
    }

    #[inline]
    fn word(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    #[inline]
    fn is_current(&self, generation: u64) -> bool {
        self.word().generation() == generation
    }

    /// Nobody who watches panics while he holds it, except `on_change`, which is called last.
    fn lock(&self) -> MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The refusal of an open circuit whose time is not over; what a stampede on an open circuit gets, so without lock.
    fn resting(&self, now: Moment) -> Option<Refused> {
        if self.word().mode() != Mode::Open {
            return None;
        }
        let retry_at = Moment::from_nanos(self.retry_at.load(Ordering::Relaxed));
        (now < retry_at).then(|| Refused { retry_after: retry_at.since(now) })
    }

    fn refusal_of(&self, slow: &Slow, now: Moment) -> Option<Refused> {
        match self.word().mode() {
            Mode::Closed | Mode::ForcedClosed => None,
            Mode::Open => self.resting(now),
            Mode::HalfOpen if slow.probes < slow.policy.probes_max => None,
            Mode::HalfOpen => Some(Refused { retry_after: slow.policy.opening(0) }),
            Mode::ForcedOpen => Some(Refused { retry_after: slow.policy.longest_opening() }),
        }
    }

    fn refusal_now(&self, now: Moment) -> Option<Refused> {
        self.resting(now).or_else(|| self.refusal_of(&self.lock(), now))
    }

    fn admit_probe(&self, now: Moment) -> Result<u64, Refused> {
        if let Some(refused) = self.resting(now) {
            return Err(refused);
        }
        let slow = &mut *self.lock();
        if let Some(refused) = self.refusal_of(slow, now) {
            return Err(refused);
        }
        if self.word().mode() == Mode::Open {
            self.change(slow, Mode::HalfOpen, Why::TimeToProbe, now);
        }
        let word = self.word();
        if word.mode() == Mode::HalfOpen {
            slow.probes += 1;
        }
        Ok(word.generation())
    }

    /// Opens the circuit if what was counted is enough. Two failures may both find that it is: the second one finds
    /// that its generation has ended.
    fn judge(&self, generation: u64, now: Moment) {
        let slow = &mut *self.lock();
        if !self.is_current(generation) {
            return;
        }
        let counts = self.tally.counts(generation, slow.policy.trip.scale(), now);
        if slow.policy.trip.is_due(counts) {
            self.change(slow, Mode::Open, Why::Failures(counts), now);
        }
    }

    fn settle_probe(&self, generation: u64, outcome: Outcome, now: Moment) {
        let slow = &mut *self.lock();
        if !self.is_current(generation) {
            return;
        }
        slow.probes -= 1;
        match outcome {
            Outcome::Neutral | Outcome::Unanswered => {}
            Outcome::Failure => {
                slow.failed_rounds = slow.failed_rounds.saturating_add(1);
                self.change(slow, Mode::Open, Why::ProbeFailed, now);
            }
            Outcome::Success => {
                slow.successes += 1;
                if slow.successes >= slow.policy.successes_to_close {
                    self.change(slow, Mode::Closed, Why::ProbesSucceeded, now);
                }
            }
        }
    }

    /// The one place where the state changes, and where that is told.
    fn change(&self, slow: &mut Slow, mode: Mode, why: Why, now: Moment) {
        let before = self.word();
        let (from, to, generation) = (before.mode().state(), mode.state(), before.generation() + 1);
        match to {
            State::Open => {
                let retry_at = now + slow.policy.opening(slow.failed_rounds);
                self.retry_at.store(retry_at.as_nanos(), Ordering::Relaxed);
                slow.opened += u64::from(from != State::Open);
            }
            State::HalfOpen => (slow.probes, slow.successes) = (0, 0),
            State::Closed => slow.failed_rounds = 0,
        }
        self.begin(slow, mode, generation);
        if from != to {
            (self.on_change)(Change { from, to, why, generation });
        }
    }

    fn begin(&self, slow: &Slow, mode: Mode, generation: u64) {
        if mode == Mode::Closed {
            self.tally.prepare(generation, slow.policy.trip.scale());
        }
        self.word.store(Word::new(mode, generation).0, Ordering::Release);
    }
}
