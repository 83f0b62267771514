//! A policy as it stands in a file: numbers with their units, checked once.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use stampede_bulkhead::{BulkheadSettings, InvalidBulkhead};
use stampede_circuit_breaker as breaker;
use stampede_deadline::{Clock, InvalidTimeout, TimeoutLayer};
use stampede_hedge as hedge;
use stampede_hedge::{Delay, HedgePolicy};
use stampede_retry::{
    Backoff, Budget, BudgetSettings, InvalidBackoff, InvalidBudget, NoAttempts, RetryPolicy,
};

/// Fewer answers do not tell a quantile from chance.
const HEDGE_SAMPLES_MIN: u32 = 50;

/// How one destination is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationPolicy {
    /// Whether there are any layers around a call.
    #[serde(default)]
    pub stack: Stack,
    /// The longest time for a call with all its attempts; a request's deadline only shortens it.
    pub deadline_ms: u64,
    /// The longest time for one attempt.
    pub attempt_ms: u64,
    /// How calls that may be repeated are repeated.
    #[serde(default)]
    pub retry: RepeatPolicy,
    /// When calls that only read are made a second time beside the first.
    #[serde(default)]
    pub hedge: HedgingPolicy,
    /// What all repetitions together, retries and hedges, may add to the load.
    #[serde(default)]
    pub budget: BudgetPolicy,
    /// When calls are not made at all.
    pub breaker: BreakerPolicy,
    /// How many calls may be under way.
    pub bulkhead: BulkheadPolicy,
}

/// Whether calls go through the layers. To switch them off is for whoever wants to see what they do, or cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stack {
    /// Through all of them.
    #[default]
    On,
    /// Straight to the callee: once, counted by nobody, bounded by the caller's deadline alone.
    Off,
}

/// Repetitions: full jitter under a ceiling that doubles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepeatPolicy {
    /// The first attempt counts.
    pub attempts_max: u32,
    /// Ceiling of the first pause.
    pub pause_ms: u64,
    /// Ceiling of every pause.
    pub pause_max_ms: u64,
}

/// Hedges: a further attempt when the last one has taken longer than this share of all calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HedgingPolicy {
    /// The first attempt counts; at least 2.
    pub attempts_max: u32,
    /// The quantile of the delay, in per mille.
    pub per_mille: u32,
    /// The delay is at least this.
    pub delay_min_ms: u64,
    /// The delay is at most this, and this until enough calls were measured.
    pub delay_max_ms: u64,
}

/// The retry budget; see [`BudgetSettings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetPolicy {
    /// Repetitions per thousand calls.
    pub per_mille: u32,
    /// Repetitions that can be saved up.
    pub reserve: u32,
    /// Repetitions a second that are always granted.
    pub min_per_second: u32,
}

/// The circuit: opens when this share of the calls of a rolling window fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerPolicy {
    /// The share of failures that opens it, in percent.
    pub percent: u32,
    /// Fewer calls in the window prove nothing.
    pub min_calls: u32,
    /// The length of the window.
    pub window_ms: u64,
    /// How long it opens at first.
    pub open_ms: u64,
    /// How long it opens at most, after probes that failed.
    pub open_max_ms: u64,
    /// Probes at a time.
    pub probes: u32,
}

/// Places and the queue for them; see [`BulkheadSettings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkheadPolicy {
    /// Calls under way at the same time.
    pub places: u32,
    /// Calls that wait for a place.
    pub waiting_max: usize,
    /// The longest wait.
    pub wait_ms: u64,
}

/// A rule that a policy breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// `deadline_ms` or `attempt_ms`.
    #[error("deadline_ms and attempt_ms: {0}")]
    Timeout(#[from] InvalidTimeout),
    /// An attempt that outlasts its call.
    #[error("attempt_ms must not be above deadline_ms")]
    AttemptAboveDeadline,
    /// `retry`.
    #[error("retry: {0}")]
    Backoff(#[from] InvalidBackoff),
    /// `retry.attempts_max`.
    #[error("retry.attempts_max: {0}")]
    Attempts(#[from] NoAttempts),
    /// `hedge`.
    #[error("hedge: {0}")]
    Hedge(#[from] hedge::InvalidPolicy),
    /// `budget`.
    #[error("budget: {0}")]
    Budget(#[from] InvalidBudget),
    /// `breaker`.
    #[error("breaker: {0}")]
    Breaker(#[from] breaker::InvalidPolicy),
    /// `bulkhead`.
    #[error("bulkhead: {0}")]
    Bulkhead(#[from] InvalidBulkhead),
}

/// What counts for calls that are made once does not have to be said; these are for the others that say nothing.
impl Default for RepeatPolicy {
    fn default() -> Self {
        DestinationPolicy::DEFAULT.retry
    }
}

impl Default for HedgingPolicy {
    fn default() -> Self {
        DestinationPolicy::DEFAULT.hedge
    }
}

impl Default for BudgetPolicy {
    fn default() -> Self {
        DestinationPolicy::DEFAULT.budget
    }
}

impl DestinationPolicy {
    /// For a service nearby that is called some hundred times a second and usually answers within milliseconds.
    pub const DEFAULT: Self = Self {
        stack: Stack::On,
        deadline_ms: 3_000,
        attempt_ms: 1_000,
        retry: RepeatPolicy { attempts_max: 4, pause_ms: 20, pause_max_ms: 500 },
        hedge: HedgingPolicy { attempts_max: 2, per_mille: 950, delay_min_ms: 20, delay_max_ms: 1_000 },
        budget: BudgetPolicy { per_mille: 100, reserve: 20, min_per_second: 1 },
        breaker: BreakerPolicy {
            percent: 50,
            min_calls: 20,
            window_ms: 10_000,
            open_ms: 200,
            open_max_ms: 5_000,
            probes: 4,
        },
        bulkhead: BulkheadPolicy { places: 64, waiting_max: 64, wait_ms: 100 },
    };

    /// Whether it can be used.
    ///
    /// # Errors
    /// [`InvalidPolicy`] with the first rule that is broken.
    pub fn check(&self) -> Result<(), InvalidPolicy> {
        let budget = Budget::try_new(self.budget(), Clock::system())?;
        self.timeouts()?;
        self.retry(budget)?;
        self.hedge()?;
        self.breaker()?;
        self.bulkhead().check()?;
        Ok(())
    }

    pub(crate) fn timeouts(&self) -> Result<(TimeoutLayer, TimeoutLayer), InvalidPolicy> {
        if self.attempt_ms > self.deadline_ms {
            return Err(InvalidPolicy::AttemptAboveDeadline);
        }
        Ok((TimeoutLayer::try_new(ms(self.deadline_ms))?, TimeoutLayer::try_new(ms(self.attempt_ms))?))
    }

    pub(crate) fn retry(&self, budget: Budget) -> Result<RetryPolicy, InvalidPolicy> {
        let RepeatPolicy { attempts_max, pause_ms, pause_max_ms } = self.retry;
        let backoff = Backoff::try_new(ms(pause_ms), ms(pause_max_ms))?;
        Ok(RetryPolicy::try_new(backoff, attempts_max)?.with_budget(budget))
    }

    pub(crate) fn hedge(&self) -> Result<HedgePolicy, InvalidPolicy> {
        let HedgingPolicy { attempts_max, per_mille, delay_min_ms, delay_max_ms } = self.hedge;
        let delay = Delay::quantile(per_mille, ms(delay_min_ms), ms(delay_max_ms), HEDGE_SAMPLES_MIN)?;
        Ok(HedgePolicy::try_new(attempts_max, delay)?)
    }

    pub(crate) fn budget(&self) -> BudgetSettings {
        let BudgetPolicy { per_mille, reserve, min_per_second } = self.budget;
        BudgetSettings { per_mille, reserve, min_per_second }
    }

    pub(crate) fn breaker(&self) -> Result<breaker::Policy, InvalidPolicy> {
        let BreakerPolicy { percent, min_calls, window_ms, open_ms, open_max_ms, probes } = self.breaker;
        let trip = breaker::Trip::rate(percent, min_calls, ms(window_ms))?;
        let policy = breaker::Policy::new(trip).open_for(ms(open_ms), ms(open_max_ms))?.probes(probes, 1)?;
        Ok(policy.when_dropped(breaker::Outcome::Unanswered).hangs_after(self.hangs_after()))
    }

    /// For how long a callee may answer no call until it counts as one that hangs: for the time of an attempt, less a tenth
    /// because a deadline of the same length has to pay for queue and pauses as well.
    fn hangs_after(&self) -> Duration {
        ms(self.attempt_ms) * 9 / 10
    }

    pub(crate) fn bulkhead(&self) -> BulkheadSettings {
        let BulkheadPolicy { places, waiting_max, wait_ms } = self.bulkhead;
        BulkheadSettings { places, waiting_max, wait_max: ms(wait_ms) }
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
