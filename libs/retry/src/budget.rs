//! How many attempts beyond the first a destination may be asked for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stampede_deadline::{Clock, Moment};

use crate::sync::AtomicU64;

/// Tokens are counted in thousandths, so that every per mille is exact.
const TOKEN: u64 = 1_000;

/// What a budget grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetSettings {
    /// Extra attempts per thousand calls, at most 1000: 100 lets the load grow by a tenth.
    pub per_mille: u32,
    /// Extra attempts that can be saved up while nothing fails; also what a new budget starts with.
    pub reserve: u32,
    /// Extra attempts a second that are granted when the savings are used up, however few calls there are; for
    /// destinations so quiet that a fraction of nothing would never repeat anything.
    pub min_per_second: u32,
}

/// A budget that protects nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBudget {
    /// More extra attempts than calls.
    #[error("a budget grants at most 1000 extra attempts per thousand calls")]
    AboveOne,
    /// The guaranteed rate cannot be counted in whole nanoseconds.
    #[error("a budget guarantees at most 1000 extra attempts a second")]
    FloorTooHigh,
}

impl BudgetSettings {
    fn check(self) -> Result<(), InvalidBudget> {
        if self.per_mille > 1_000 {
            Err(InvalidBudget::AboveOne)
        } else if self.min_per_second > 1_000 {
            Err(InvalidBudget::FloorTooHigh)
        } else {
            Ok(())
        }
    }

    fn deposit(self) -> u64 {
        u64::from(self.per_mille)
    }

    fn full(self) -> u64 {
        u64::from(self.reserve) * TOKEN
    }

    fn floor_interval(self) -> u64 {
        1_000_000_000_u64.checked_div(u64::from(self.min_per_second)).unwrap_or(0)
    }
}

/// A fraction of the calls, shared by everybody who repeats calls of one destination: retries and hedges. A handle:
/// clones share what is left.
///
/// In any stretch of time at most `reserve + calls · per_mille / 1000 + (seconds + 1) · min_per_second` extra attempts
/// are granted, exactly and from whatever number of threads.
#[derive(Clone)]
pub struct Budget(Arc<State>);

struct State {
    deposit: AtomicU64,
    full: AtomicU64,
    savings: AtomicU64,
    /// The guaranteed rate as GCRA: when its bucket will be full again, in nanoseconds of the clock.
    floor_at: AtomicU64,
    /// In nanoseconds; zero guarantees nothing.
    floor_interval: AtomicU64,
    clock: Clock,
}

impl Budget {
    /// A full budget.
    ///
    /// # Errors
    /// [`InvalidBudget`] for more than one extra attempt a call, or more than 1000 a second guaranteed.
    pub fn try_new(settings: BudgetSettings, clock: Clock) -> Result<Self, InvalidBudget> {
        settings.check()?;
        Ok(Self(Arc::new(State {
            deposit: AtomicU64::new(settings.deposit()),
            full: AtomicU64::new(settings.full()),
            savings: AtomicU64::new(settings.full()),
            floor_at: AtomicU64::new(0),
            floor_interval: AtomicU64::new(settings.floor_interval()),
            clock,
        })))
    }

    /// Other settings, for all handles. What was saved up stays, as far as it fits under the new reserve: a change grants
    /// nothing.
    ///
    /// # Errors
    /// [`InvalidBudget`] as for a new one; then nothing changes.
    pub fn set_settings(&self, settings: BudgetSettings) -> Result<(), InvalidBudget> {
        settings.check()?;
        let state = &*self.0;
        state.deposit.store(settings.deposit(), Ordering::Relaxed);
        state.floor_interval.store(settings.floor_interval(), Ordering::Relaxed);
        state.full.store(settings.full(), Ordering::Relaxed);
        // A call that saw the old reserve may yet save a thousandth or so too much.
        state.savings.fetch_min(settings.full(), Ordering::Relaxed);
        Ok(())
    }

    /// A call is made: its share is saved, as long as there is room. Only the first attempt of a call counts.
    #[inline]
    pub fn deposit(&self) {
        let State { deposit, full, savings, .. } = &*self.0;
        let full = full.load(Ordering::Relaxed);
        let mut saved = savings.load(Ordering::Relaxed);
        // A destination that is well has a full budget: then nothing is written, and cores do not fight for the word.
        while saved < full {
            let more = (saved + deposit.load(Ordering::Relaxed)).min(full);
            match savings.compare_exchange_weak(saved, more, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(current) => saved = current,
            }
        }
    }

    /// Whether one more attempt is granted; if so, it is paid for.
    pub fn try_withdraw(&self) -> bool {
        self.withdraw_savings() || self.withdraw_floor()
    }

    /// How many extra attempts are saved up, rounded down.
    pub fn remaining(&self) -> u64 {
        self.0.savings.load(Ordering::Relaxed) / TOKEN
    }

    fn withdraw_savings(&self) -> bool {
        let savings = &self.0.savings;
        let mut saved = savings.load(Ordering::Relaxed);
        while let Some(less) = saved.checked_sub(TOKEN) {
            match savings.compare_exchange_weak(saved, less, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(current) => saved = current,
            }
        }
        false
    }

    fn withdraw_floor(&self) -> bool {
        let interval = Duration::from_nanos(self.0.floor_interval.load(Ordering::Relaxed));
        if interval.is_zero() {
            return false;
        }
        let now = self.0.clock.now();
        let mut at = self.0.floor_at.load(Ordering::Relaxed);
        loop {
            let next = Moment::from_nanos(at).max(now) + interval;
            // A second's worth may be spent at once.
            if next.since(now) > Duration::from_secs(1) {
                return false;
            }
            let swap = self.0.floor_at.compare_exchange_weak(
                at,
                next.as_nanos(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match swap {
                Ok(_) => return true,
                Err(current) => at = current,
            }
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("remaining", &self.remaining()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};
    use tokio::time::advance;

    use super::*;

    fn budget(per_mille: u32, reserve: u32, min_per_second: u32) -> Budget {
        let settings = BudgetSettings { per_mille, reserve, min_per_second };
        Budget::try_new(settings, Clock::tokio()).unwrap()
    }

    fn granted(budget: &Budget) -> u32 {
        let mut granted = 0;
        while budget.try_withdraw() {
            granted += 1;
        }
        granted
    }

    #[test]
    fn the_broken_rule_is_named() {
        let try_new = |per_mille, min_per_second| {
            Budget::try_new(BudgetSettings { per_mille, reserve: 1, min_per_second }, Clock::system()).err()
        };
        assert_eq!(try_new(1_000, 1_000), None);
        assert_eq!(try_new(1_001, 0), Some(InvalidBudget::AboveOne));
        assert_eq!(try_new(1, 1_001), Some(InvalidBudget::FloorTooHigh));
    }

    #[tokio::test(start_paused = true)]
    async fn the_fraction_is_exact() {
        let budget = budget(100, 50, 0);
        assert_eq!(granted(&budget), 50, "the reserve");
        for _ in 0..249 {
            budget.deposit();
        }
        assert_eq!(granted(&budget), 24);
        budget.deposit();
        assert_eq!(granted(&budget), 1, "no thousandth is lost");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_reserve_is_saved() {
        let budget = budget(1_000, 3, 0);
        for _ in 0..1_000 {
            budget.deposit();
        }
        assert_eq!((budget.remaining(), granted(&budget)), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_destination_gets_what_is_guaranteed() {
        let budget = budget(0, 0, 4);
        assert_eq!(granted(&budget), 4, "a second's worth at once");
        advance(Duration::from_millis(249)).await;
        assert_eq!(granted(&budget), 0);
        advance(Duration::from_millis(1)).await;
        assert_eq!(granted(&budget), 1);
        advance(Duration::from_secs(3_600)).await;
        assert_eq!(granted(&budget), 4, "nothing of it is saved");
    }

    #[tokio::test(start_paused = true)]
    async fn other_settings_grant_no_attempts() {
        let budget = budget(0, 10, 4);
        assert_eq!(granted(&budget), 14, "the reserve and a second's worth");
        let set = |per_mille, reserve, min_per_second| {
            budget.set_settings(BudgetSettings { per_mille, reserve, min_per_second })
        };
        set(500, 20, 4).unwrap();
        assert_eq!(granted(&budget), 0);
        (0..50).for_each(|_| budget.deposit());
        assert_eq!(budget.remaining(), 20, "half of fifty calls, as far as the reserve holds them");
        set(500, 7, 0).unwrap();
        assert_eq!(
            (set(1_001, 99, 9), set(0, 99, 1_001)),
            (Err(InvalidBudget::AboveOne), Err(InvalidBudget::FloorTooHigh))
        );
        advance(Duration::from_secs(9)).await;
        assert_eq!(granted(&budget), 7, "and nothing is guaranteed any more");
    }

    #[test]
    fn threads_are_never_granted_more_than_there_is() {
        for _ in 0..20 {
            let budget = budget(200, 100, 0);
            let spend = || {
                (0..5_000)
                    .filter(|_| {
                        budget.deposit();
                        budget.try_withdraw()
                    })
                    .count()
            };
            let total: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(spend)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert!(total <= 100 + 20_000 / 5, "{total}");
        }
    }

    proptest! {
        /// The model counts in whole thousandths, one operation after the other.
        #[test]
        fn it_agrees_with_a_purse(per_mille in 0_u32..=1_000, reserve in 0_u32..20, operations in prop::collection::vec(any::<bool>(), 0..400)) {
            let budget = budget(per_mille, reserve, 0);
            let (full, mut purse) = (u64::from(reserve) * 1_000, u64::from(reserve) * 1_000);
            for is_call in operations {
                if is_call {
                    budget.deposit();
                    purse = full.min(purse + u64::from(per_mille));
                } else {
                    let grants = purse >= 1_000;
                    purse -= if grants { 1_000 } else { 0 };
                    prop_assert_eq!(budget.try_withdraw(), grants);
                }
                prop_assert_eq!(budget.remaining(), purse / 1_000);
            }
        }
    }
}

#[cfg(test)]
#[cfg(stampede_loom)]
mod loom_tests {
    use loom::thread;

    use super::*;

    /// In every order of two threads: what is granted was there, and nothing that was there is lost.
    #[test]
    fn loom_a_token_is_granted_once_and_none_is_lost() {
        loom::model(|| {
            let settings = BudgetSettings { per_mille: 1_000, reserve: 2, min_per_second: 0 };
            let budget = Budget::try_new(settings, Clock::system()).unwrap();
            budget.try_withdraw();
            let other = budget.clone();
            let thread = thread::spawn(move || {
                other.deposit();
                u64::from(other.try_withdraw())
            });
            let mine = u64::from(budget.try_withdraw()) + u64::from(budget.try_withdraw());
            let theirs = thread.join().unwrap();
            assert_eq!(mine + theirs + budget.remaining(), 2);
        });
    }
}
