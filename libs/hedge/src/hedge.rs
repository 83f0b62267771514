//! The handle that everybody shares who calls the same destination.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stampede_deadline::{Clock, Moment, nanos};
use stampede_retry::Budget;

use crate::HedgePolicy;
use crate::latencies::Latencies;
use crate::policy::Rule;

/// Decides when calls of a destination are hedged. Clones are handles of one and the same.
#[derive(Clone)]
pub struct Hedge(Arc<Handle>);

/// How a service and its calls hold it. A service that makes more than one call has a handle of its own: if the calls of
/// all threads were counted in one `Arc`, they would spend most of their time on fighting for that count.
struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    policy: HedgePolicy,
    /// In nanoseconds; worked out now and then, so that a call reads one word.
    delay: AtomicU64,
    seen: Arc<Seen>,
}

/// What was learned and counted, whatever the policy.
struct Seen {
    budget: Budget,
    clock: Clock,
    latencies: Latencies,
    hedged: AtomicU64,
    won: AtomicU64,
    refused: AtomicU64,
}

/// What a metric or an operator's page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Attempts that were made beside the first one of a call.
    pub hedged: u64,
    /// How many of them gave the answer of their call.
    pub won: u64,
    /// How often the budget did not grant one.
    pub refused: u64,
    /// How long an attempt is waited for now.
    pub delay: Duration,
}

impl Hedge {
    /// `budget` is the one that retries of the same destination draw on.
    pub fn new(policy: HedgePolicy, budget: Budget, clock: Clock) -> Self {
        let seen = Seen {
            budget,
            clock,
            latencies: Latencies::new(),
            hedged: AtomicU64::new(0),
            won: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        Self::over(policy, Arc::new(seen))
    }

    /// The same under another policy: what was learned of latencies stays, and the delay follows from it. Calls that were
    /// made through this handle continue as they began.
    #[must_use]
    pub fn with_policy(&self, policy: HedgePolicy) -> Self {
        Self::over(policy, Arc::clone(&self.0.shared.seen))
    }

    fn over(policy: HedgePolicy, seen: Arc<Seen>) -> Self {
        let delay = seen.delay(policy).unwrap_or(policy.delay.at_first());
        let shared = Shared { policy, delay: AtomicU64::new(nanos(delay)), seen };
        Self(Arc::new(Handle { shared: Arc::new(shared) }))
    }

    /// The same through a handle of its own.
    #[cold]
    pub(crate) fn apart(&self) -> Self {
        Self(Arc::new(Handle { shared: Arc::clone(&self.0.shared) }))
    }

    /// What there is to show.
    pub fn snapshot(&self) -> Snapshot {
        let seen = self.seen();
        Snapshot {
            hedged: seen.hedged.load(Ordering::Relaxed),
            won: seen.won.load(Ordering::Relaxed),
            refused: seen.refused.load(Ordering::Relaxed),
            delay: self.delay(),
        }
    }

    pub(crate) fn attempts_max(&self) -> u32 {
        self.0.shared.policy.attempts_max
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_nanos(self.0.shared.delay.load(Ordering::Relaxed))
    }

    pub(crate) fn now(&self) -> Moment {
        self.seen().clock.now()
    }

    fn seen(&self) -> &Seen {
        &self.0.shared.seen
    }

    /// Whether the budget grants one more attempt.
    pub(crate) fn is_granted(&self) -> bool {
        let seen = self.seen();
        let granted = seen.budget.try_withdraw();
        let counter = if granted { &seen.hedged } else { &seen.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        granted
    }

    pub(crate) fn count_won(&self) {
        self.seen().won.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes how long the first attempt of a call took; of one that lost, how long it had taken until then. It is at
    /// least as slow as that, and without it the slow ones would vanish from the quantile because they are hedged.
    pub(crate) fn observe(&self, started: Moment) {
        let Shared { policy, delay, seen } = &*self.0.shared;
        if matches!(policy.delay.0, Rule::Quantile { .. })
            && seen.latencies.record(self.now().since(started))
            && let Some(learned) = seen.delay(*policy)
        {
            delay.store(nanos(learned), Ordering::Relaxed);
        }
    }
}

impl Seen {
    /// The delay that follows from the latencies, if there were enough of them.
    fn delay(&self, policy: HedgePolicy) -> Option<Duration> {
        let Rule::Quantile { per_mille, min, max, samples_min } = policy.delay.0 else { return None };
        if self.latencies.counted() < u64::from(samples_min) {
            return None;
        }
        Some(self.latencies.quantile(per_mille)?.clamp(min, max))
    }
}

impl fmt::Debug for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hedge").field(&self.snapshot()).finish()
    }
}
