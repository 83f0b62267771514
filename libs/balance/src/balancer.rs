//! The handle that everybody shares who calls the same service, and what a call holds.

use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use stampede_deadline::Clock;

use crate::fleet::{Fleet, Replica};
use crate::{Change, InvalidSettings, Outcome, Settings, Snapshot};

/// Spreads calls over the replicas of one service; `K` is the address of one. Clones are handles of one and the same.
pub struct Balancer<K>(Arc<Shared<K>>);

struct Shared<K> {
    state: Mutex<State<K>>,
    clock: Clock,
    on_change: Box<dyn Fn(Change<K>) + Send + Sync>,
}

struct State<K> {
    fleet: Fleet<K>,
    rng: SmallRng,
}

impl<K: Clone + Eq + Hash> Balancer<K> {
    /// Without any replica yet.
    ///
    /// # Errors
    /// [`InvalidSettings`] names the rule that the settings break.
    pub fn try_new(settings: Settings, clock: Clock) -> Result<Self, InvalidSettings> {
        Self::observed(settings, clock, |_| {})
    }

    /// The same, and `on_change` is told of every ejection and every return exactly once, by the call that brought it
    /// about or that came first after the time was over. No lock is held meanwhile: it may call back, and of two
    /// changes at the same time it may hear the later one first, as their generations say. Of who leaves the set it
    /// hears nothing any more.
    ///
    /// # Errors
    /// [`InvalidSettings`] names the rule that the settings break.
    pub fn observed(
        settings: Settings,
        clock: Clock,
        on_change: impl Fn(Change<K>) + Send + Sync + 'static,
    ) -> Result<Self, InvalidSettings> {
        settings.check()?;
        let state = Mutex::new(State { fleet: Fleet::new(settings), rng: rand::make_rng() });
        Ok(Self(Arc::new(Shared { state, clock, on_change: Box::new(on_change) })))
    }

    /// Choices that are the same in every run.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        self.0.with(|state| state.rng = SmallRng::seed_from_u64(seed));
        self
    }

    /// From now on these are the replicas. What is known of those that stay is kept: their calls in flight, their
    /// failures, their ejection, unless the set has become too small to have so many ejected. Those that are no longer
    /// there are forgotten; calls on their way to them end without effect.
    pub fn set_replicas(&self, replicas: impl IntoIterator<Item = K>) {
        // Hashed before the lock is taken. Where nothing has changed, all that is left to do there is look them up.
        let named = replicas.into_iter().zip(0..).collect();
        let now = self.0.clock.now();
        self.0.with(|state| state.fleet.set_replicas(named, now));
    }

    /// A replica for a call, other than those it has `tried`: of two at random the one with fewer calls in flight.
    /// An ejected one only where no other is left; `None` where none at all is.
    pub fn pick(&self, tried: &[K]) -> Option<Pick<K>> {
        self.0.with(|State { fleet, rng }| {
            let (replica, generation) = fleet.pick(tried, rng, || self.0.clock.now())?;
            replica.begin();
            Some(Pick { shared: Arc::clone(&self.0), replica: Arc::clone(replica), generation })
        })
    }

    /// How every replica stands, in the order in which they came.
    pub fn snapshot(&self) -> Vec<Snapshot<K>> {
        let now = self.0.clock.now();
        self.0.with(|state| state.fleet.snapshot(now))
    }
}

impl<K: Clone + Eq + Hash> Shared<K> {
    /// Does something under the lock, and tells what changed when it is free again.
    fn with<T>(&self, act: impl FnOnce(&mut State<K>) -> T) -> T {
        // Nobody panics while he holds it, unless the address of a replica does when it is compared.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = act(&mut state);
        let changes = state.fleet.take_changes();
        drop(state);
        changes.into_iter().for_each(&self.on_change);
        answer
    }
}

// Derived, it would ask for `K: Clone` and hide the sharing.
impl<K> Clone for Balancer<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Clone + Eq + Hash + fmt::Debug> fmt::Debug for Balancer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Balancer").field(&self.snapshot()).finish()
    }
}

/// A call's hold on a replica, which counts as one in flight until this is dropped. Keep it until the last byte of the
/// answer is there.
///
/// Dropped without an outcome it is neutral: who dropped the call knows nothing about the replica.
#[must_use = "a pick that is dropped no longer counts as a call in flight"]
pub struct Pick<K> {
    shared: Arc<Shared<K>>,
    replica: Arc<Replica<K>>,
    generation: u64,
}

impl<K> Pick<K> {
    /// Whom to call.
    pub fn replica(&self) -> &K {
        &self.replica.address
    }
}

impl<K: Clone + Eq + Hash> Pick<K> {
    /// Says how the call went, and ends it. The outcome is ignored if the replica was ejected when the call began, or
    /// has been since, or has left the set.
    pub fn record(self, outcome: Outcome) {
        if outcome != Outcome::Neutral {
            let Self { shared, replica, generation } = &self;
            shared.with(|state| {
                state.fleet.record(replica, *generation, outcome, || shared.clock.now());
            });
        }
    }
}

impl<K> Drop for Pick<K> {
    fn drop(&mut self) {
        self.replica.end();
    }
}

impl<K: fmt::Debug> fmt::Debug for Pick<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pick").field("replica", self.replica()).finish_non_exhaustive()
    }
}
