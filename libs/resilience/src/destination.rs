//! Everything that is known of one destination.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use stampede_bulkhead as bulkhead;
use stampede_bulkhead::{Bulkhead, BulkheadLayer};
use stampede_circuit_breaker as breaker;
use stampede_circuit_breaker::{CircuitBreaker, CircuitBreakerLayer};
use stampede_contracts::function::{Guarantee, Safe};
use stampede_contracts::{Function, Repeatable};
use stampede_deadline::{Clock, TimeoutLayer};
use stampede_hedge as hedge;
use stampede_hedge::{Hedge, HedgeLayer};
use stampede_retry::{Budget, RetryLayer, RetryPolicy};

use crate::count::Counters;
use crate::{
    CountLayer, DestinationPolicy, HedgingStack, InvalidPolicy, RepeatingStack, Sees, SingleStack, Stack,
    Totals, metrics, registry,
};

/// The state of all calls to one destination, and how they are made. A handle: clones, and all stacks made from them,
/// share it.
///
/// `G` is the guarantee of the functions that are called. What it forbids does not compile: a call with an effect that
/// nothing bounds is not repeated.
///
/// ```compile_fail,E0599
/// use stampede_contracts::function::Once;
/// fn repeat(feed: stampede_resilience::Destination<Once>) {
///     let _ = feed.repeating(|_: Result<&(), &()>| stampede_resilience::Meaning::Answer);
/// }
/// ```
///
/// With a key it is; but two attempts at the same time are not for what has an effect, key or not:
///
/// ```
/// use stampede_contracts::function::Keyed;
/// fn repeat(hold: stampede_resilience::Destination<Keyed>) {
///     let _ = hold.repeating(|_: Result<&(), &()>| stampede_resilience::Meaning::Answer);
/// }
/// ```
///
/// ```compile_fail,E0599
/// use stampede_contracts::function::Keyed;
/// fn hedge(hold: stampede_resilience::Destination<Keyed>) {
///     let _ = hold.hedging(|_: Result<&(), &()>| stampede_resilience::Meaning::Answer);
/// }
/// ```
///
/// ```
/// use stampede_contracts::function::{Guarantee, Safe};
/// fn hedge(shows: stampede_resilience::Destination<Safe>) {
///     let _ = shows.hedging(|_: Result<&(), &()>| stampede_resilience::Meaning::Answer);
/// }
/// ```
pub struct Destination<G> {
    shared: Arc<Shared>,
    guarantee: PhantomData<fn() -> G>,
}

pub(crate) struct Shared {
    pub(crate) name: Box<str>,
    breaker: CircuitBreaker,
    bulkhead: Bulkhead,
    budget: Budget,
    counters: Arc<Counters>,
    is_on: AtomicBool,
    settings: RwLock<Settings>,
}

#[derive(Clone)]
struct Settings {
    policy: DestinationPolicy,
    deadline: TimeoutLayer,
    attempt: TimeoutLayer,
    retry: RetryPolicy,
    hedge: Hedge,
}

/// How a destination is: for metrics, and for a page that an operator reads.
#[derive(Clone, Debug)]
pub struct Health {
    /// Its name.
    pub name: Box<str>,
    /// Whether it is called.
    pub breaker: breaker::Snapshot,
    /// Who calls and who waits.
    pub bulkhead: bulkhead::Snapshot,
    /// Repetitions that are saved up.
    pub budget: u64,
    /// Attempts beside the first.
    pub hedge: hedge::Snapshot,
    /// How calls ended.
    pub totals: Totals,
    /// How it is called.
    pub policy: DestinationPolicy,
}

impl<G> Destination<G> {
    /// A destination that nobody has called yet. Its metrics carry `name`.
    ///
    /// # Errors
    /// [`InvalidPolicy`] with the rule that is broken.
    pub fn try_new(
        name: impl Into<Box<str>>,
        policy: &DestinationPolicy,
        clock: Clock,
    ) -> Result<Self, InvalidPolicy> {
        let name = name.into();
        let budget = Budget::try_new(policy.budget(), clock.clone())?;
        let hedge = Hedge::new(policy.hedge()?, budget.clone(), clock.clone());
        let shared = Arc::new(Shared {
            breaker: CircuitBreaker::observed(policy.breaker()?, clock, {
                let name = name.clone();
                move |change| tell(&name, change)
            }),
            name,
            bulkhead: Bulkhead::try_new(policy.bulkhead())?,
            counters: Arc::default(),
            is_on: AtomicBool::new(policy.stack == Stack::On),
            settings: RwLock::new(Settings::try_new(policy, &budget, hedge)?),
            budget,
        });
        metrics::show(&shared);
        registry::enter(&shared);
        Ok(Self { shared, guarantee: PhantomData })
    }

    /// Puts another policy in the place of the present one, for calls that begin from now on. What was learned of the
    /// destination stays: the calls that its circuit has counted (unless the window differs so much that they have to be
    /// counted again), how long answers take, and what is left of its budget.
    ///
    /// # Errors
    /// [`InvalidPolicy`]; then nothing changes.
    pub fn set_policy(&self, policy: &DestinationPolicy) -> Result<(), InvalidPolicy> {
        policy.check()?;
        let Shared { breaker, bulkhead, budget, is_on, settings, .. } = &*self.shared;
        // Held until all of it is in force: of two concurrent changes one is applied after the other, with every part.
        let mut settings = settings.write().unwrap_or_else(PoisonError::into_inner);
        *settings = Settings::try_new(policy, budget, settings.hedge.with_policy(policy.hedge()?))?;
        budget.set_settings(policy.budget())?;
        breaker.set_policy(policy.breaker()?);
        bulkhead.set_settings(policy.bulkhead())?;
        is_on.store(policy.stack == Stack::On, Ordering::Relaxed);
        Ok(())
    }

    /// Whether calls go through its layers. Where they do not, the caller leaves them out: a layer that is asked whether it
    /// is there costs as much as one that is.
    pub fn is_on(&self) -> bool {
        self.shared.is_on.load(Ordering::Relaxed)
    }

    /// The policy that is in force.
    pub fn policy(&self) -> DestinationPolicy {
        self.shared.settings().policy
    }

    /// The circuit, for an operator who wants to force it.
    pub fn breaker(&self) -> &CircuitBreaker {
        &self.shared.breaker
    }

    /// How it is.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// The same destination, as the caller of this function: what may be done is what its guarantee allows.
    pub fn offering<F: Function>(&self) -> Destination<F::Guarantee> {
        self.promising()
    }

    /// The same destination, as the caller of functions with this guarantee.
    pub fn promising<H: Guarantee>(&self) -> Destination<H> {
        Destination { shared: Arc::clone(&self.shared), guarantee: PhantomData }
    }

    /// The layers of calls that are made once, as the policy stands now.
    pub fn single<M: Clone>(&self, means: M) -> SingleStack<M> {
        let Settings { deadline, attempt, .. } = self.shared.settings();
        SingleStack {
            count: CountLayer(Arc::clone(&self.shared.counters)),
            deadline,
            breaker: CircuitBreakerLayer::new(self.shared.breaker.clone(), Sees(means)),
            bulkhead: BulkheadLayer::new(self.shared.bulkhead.clone()),
            attempt,
        }
    }
}

impl<G: Repeatable> Destination<G> {
    /// The layers of calls that may be repeated, as the policy stands now.
    pub fn repeating<M: Clone>(&self, means: M) -> RepeatingStack<M> {
        let retry = RetryLayer::new(self.shared.settings().retry, Sees(means.clone()));
        RepeatingStack { single: self.single(means), retry }
    }
}

impl Destination<Safe> {
    /// The layers of calls that only read, as the policy stands now.
    pub fn hedging<M: Clone>(&self, means: M) -> HedgingStack<M> {
        let hedge = HedgeLayer::new(self.shared.settings().hedge, Sees(means.clone()));
        HedgingStack { repeating: self.repeating(means), hedge }
    }
}

impl Shared {
    fn settings(&self) -> Settings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn health(&self) -> Health {
        let settings = self.settings();
        Health {
            name: self.name.clone(),
            breaker: self.breaker.snapshot(),
            bulkhead: self.bulkhead.snapshot(),
            budget: self.budget.remaining(),
            hedge: settings.hedge.snapshot(),
            totals: self.counters.totals(),
            policy: settings.policy,
        }
    }
}

impl Settings {
    fn try_new(policy: &DestinationPolicy, budget: &Budget, hedge: Hedge) -> Result<Self, InvalidPolicy> {
        let (deadline, attempt) = policy.timeouts()?;
        Ok(Self { policy: *policy, deadline, attempt, retry: policy.retry(budget.clone())?, hedge })
    }
}

fn tell(name: &str, change: breaker::Change) {
    let breaker::Change { from, to, why, .. } = change;
    if to == breaker::State::Open {
        tracing::warn!(destination = name, ?from, ?to, ?why, "a circuit opened");
    } else {
        tracing::info!(destination = name, ?from, ?to, ?why, "a circuit changed");
    }
}

impl<G> Clone for Destination<G> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), guarantee: PhantomData }
    }
}

impl<G> fmt::Debug for Destination<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.health().fmt(f)
    }
}
