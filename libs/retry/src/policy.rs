//! The decision: whether there is another attempt, and when. Told everything, it knows neither clock nor runtime.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::{Backoff, Budget};

/// What an attempt means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A success, or an error that another attempt would not change.
    Final,
    /// Another attempt may do better.
    Again,
    /// The same, but not before this time: the server has said so.
    AgainAfter(Duration),
}

/// No attempt at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a call has at least one attempt")]
pub struct NoAttempts;

/// When to repeat a call. A handle: clones share budget and randomness.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    shared: Option<Arc<Shared>>,
    backoff: Backoff,
    attempts_max: u32,
}

/// What calls have in common. A service that makes more than one call has an `Arc` of its own: if the calls of all threads
/// were counted in one, they would spend most of their time on fighting for that count.
#[derive(Clone, Debug, Default)]
struct Shared {
    budget: Option<Budget>,
    seeded: Option<Arc<Mutex<SmallRng>>>,
}

impl RetryPolicy {
    /// At most `attempts_max` attempts a call, the first among them, with these pauses in between.
    ///
    /// # Errors
    /// [`NoAttempts`] when that is zero.
    pub fn try_new(backoff: Backoff, attempts_max: u32) -> Result<Self, NoAttempts> {
        if attempts_max == 0 {
            return Err(NoAttempts);
        }
        Ok(Self { backoff, attempts_max, shared: None })
    }

    /// Pays every attempt after the first from this budget, and saves a share of every call into it.
    #[must_use]
    pub fn with_budget(self, budget: Budget) -> Self {
        self.sharing(|shared| shared.budget = Some(budget))
    }

    /// Pauses that are the same in every run.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        let rng = SmallRng::seed_from_u64(seed);
        self.sharing(|shared| shared.seeded = Some(Arc::new(Mutex::new(rng))))
    }

    fn sharing(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        let mut shared = self.shared.as_deref().cloned().unwrap_or_default();
        change(&mut shared);
        self.shared = Some(Arc::new(shared));
        self
    }

    /// The budget, if there is one.
    pub fn budget(&self) -> Option<&Budget> {
        self.shared.as_deref()?.budget.as_ref()
    }

    /// From here on through an `Arc` of its own.
    #[cold]
    pub(crate) fn set_apart(&mut self) {
        self.shared = self.shared.as_deref().cloned().map(Arc::new);
    }

    /// Whether an attempt, counted from 0, is not the last one a call may have.
    pub fn has_more(&self, attempt: u32) -> bool {
        attempt < self.attempts_max - 1
    }

    /// The pause before the attempt after this one (counted from 0), or `None` when that was the last: because the
    /// verdict is final, attempts or budget are used up, or the pause would not end while there is time `left`. Paid
    /// for when it is granted.
    pub fn pause(&self, attempt: u32, verdict: Verdict, left: Option<Duration>) -> Option<Duration> {
        let at_least = match verdict {
            Verdict::Final => return None,
            Verdict::Again => Duration::ZERO,
            Verdict::AgainAfter(wait) => wait,
        };
        if !self.has_more(attempt) {
            return None;
        }
        // Added and not just the larger of the two: a server that sends everybody away for a second would else see
        // everybody again in the same moment.
        let pause = at_least.saturating_add(self.delay(attempt));
        if left.is_some_and(|left| pause >= left) {
            return None;
        }
        self.budget().is_none_or(Budget::try_withdraw).then_some(pause)
    }

    fn delay(&self, attempt: u32) -> Duration {
        match self.shared.as_deref().and_then(|shared| shared.seeded.as_ref()) {
            None => self.backoff.delay(attempt, &mut rand::rng()),
            Some(rng) => {
                self.backoff.delay(attempt, &mut *rng.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests {
    use stampede_deadline::Clock;

    use super::*;
    use crate::BudgetSettings;

    const MS: Duration = Duration::from_millis(1);

    fn policy(attempts_max: u32) -> RetryPolicy {
        RetryPolicy::try_new(Backoff::try_new(10 * MS, 40 * MS).unwrap(), attempts_max).unwrap()
    }

    #[test]
    fn attempts_are_counted_and_a_final_verdict_ends_them() {
        assert!(RetryPolicy::try_new(Backoff::try_new(MS, MS).unwrap(), 0).is_err());
        let policy = policy(3);
        assert!(policy.pause(0, Verdict::Again, None).is_some());
        assert!(policy.pause(1, Verdict::Again, None).is_some());
        assert_eq!(policy.pause(2, Verdict::Again, None), None);
        assert_eq!(policy.pause(u32::MAX, Verdict::Again, None), None);
        assert_eq!(policy.pause(0, Verdict::Final, None), None);
    }

    #[test]
    fn the_server_is_waited_for_and_the_jitter_comes_on_top() {
        let policy = policy(3).with_seed(1);
        let pauses: Vec<_> =
            (0..200).filter_map(|_| policy.pause(0, Verdict::AgainAfter(100 * MS), None)).collect();
        assert!(pauses.iter().all(|pause| (100 * MS..=110 * MS).contains(pause)));
        assert!(pauses.iter().max() > pauses.iter().min());
        assert_eq!(policy.pause(0, Verdict::AgainAfter(100 * MS), Some(100 * MS)), None, "too late");
        assert_eq!(policy.pause(0, Verdict::AgainAfter(Duration::MAX), Some(100 * MS)), None);
    }

    #[test]
    fn the_same_seed_makes_the_same_pauses() {
        let pauses = |seed| {
            let policy = policy(9).with_seed(seed);
            (0..8).map(|attempt| policy.pause(attempt, Verdict::Again, None)).collect::<Vec<_>>()
        };
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
    }

    #[test]
    fn what_is_refused_for_another_reason_is_not_paid_for() {
        let settings = BudgetSettings { per_mille: 0, reserve: 1, min_per_second: 0 };
        let policy = policy(2).with_budget(Budget::try_new(settings, Clock::system()).unwrap());
        assert_eq!(policy.pause(0, Verdict::Final, None), None);
        assert_eq!(policy.pause(1, Verdict::Again, None), None);
        assert_eq!(policy.pause(0, Verdict::Again, Some(Duration::ZERO)), None);
        assert!(policy.pause(0, Verdict::Again, None).is_some(), "the one token is still there");
        assert_eq!(policy.pause(0, Verdict::Again, None), None);
    }
}
