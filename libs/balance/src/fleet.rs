//! The decision: which replica gets a call, and which one is ejected. It is handed the time and the randomness, and
//! asks for the time only where it needs it.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rand::{Rng, RngExt};
use stampede_deadline::Moment;

use crate::health::Health;
use crate::{Change, Event, Outcome, Settings, Snapshot};

/// A replica and the calls on their way to it. Shared with them, so that they may end after it has left the set.
#[derive(Debug)]
pub(crate) struct Replica<K> {
    pub address: K,
    in_flight: AtomicU32,
}

/// The replicas of one service.
pub(crate) struct Fleet<K> {
    settings: Settings,
    members: Vec<Member<K>>,
    /// How many of them are ejected.
    ejected: usize,
    /// What nobody was told of yet.
    changes: Vec<Change<K>>,
}

struct Member<K> {
    replica: Arc<Replica<K>>,
    health: Health,
}

impl<K> Replica<K> {
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl<K> Member<K> {
    fn new(address: K) -> Self {
        let replica = Arc::new(Replica { address, in_flight: AtomicU32::new(0) });
        Self { replica, health: Health::default() }
    }

    fn is_ejected(&self) -> bool {
        self.health.ejected_until().is_some()
    }
}

impl<K: Clone + Eq + Hash> Fleet<K> {
    pub fn new(settings: Settings) -> Self {
        Self { settings, members: Vec::new(), ejected: 0, changes: Vec::new() }
    }

    /// From now on the set is this, each with its place in the order in which they were named. Who stays keeps what is
    /// known of it, who has left is forgotten.
    pub fn set_replicas(&mut self, mut named: HashMap<K, usize>, now: Moment) {
        self.readmit_until(now);
        self.members.retain(|member| named.remove(&member.replica.address).is_some());
        // In order, so that a seed means the same in every run.
        let mut new: Vec<_> = named.into_iter().collect();
        new.sort_unstable_by_key(|&(_, place)| place);
        self.members.extend(new.into_iter().map(|(address, _)| Member::new(address)));

        // A smaller set bears fewer ejections: those that would soon be over end now, one a turn at least.
        self.ejected = self.members.iter().filter(|member| member.is_ejected()).count();
        while self.ejected > self.settings.ejected_max(self.members.len())
            && let Some(soonest) =
                self.members.iter().filter_map(|member| member.health.ejected_until()).min()
        {
            self.readmit_until(soonest);
        }
    }

    /// The replica for a call that these have not answered, and its generation.
    pub fn pick(
        &mut self,
        tried: &[K],
        rng: &mut impl Rng,
        now: impl FnOnce() -> Moment,
    ) -> Option<(&Arc<Replica<K>>, u64)> {
        if self.ejected > 0 {
            self.readmit_until(now());
        }
        let members = self.members.iter();
        let chosen = if tried.is_empty() && self.ejected == 0 {
            less_loaded(members, rng)
        } else {
            let untried = members.filter(|member| !tried.contains(&member.replica.address));
            let in_rotation = untried.clone().filter(|member| !member.is_ejected());
            // Better one that may be ill than none.
            less_loaded(in_rotation, rng).or_else(|| less_loaded(untried, rng))
        };
        chosen.map(|member| (&member.replica, member.health.generation()))
    }

    /// Takes the outcome of a call to a replica, which may have left the set or changed its state since.
    pub fn record(
        &mut self,
        replica: &Arc<Replica<K>>,
        generation: u64,
        outcome: Outcome,
        now: impl FnOnce() -> Moment,
    ) {
        let Some(index) = self.members.iter().position(|member| Arc::ptr_eq(&member.replica, replica)) else {
            return;
        };
        if !self.members[index].health.record(generation, outcome, self.settings.failures_max) {
            return;
        }
        let now = now();
        self.readmit_until(now);
        // Too many are ejected already? Then its next failure asks again.
        if self.ejected < self.settings.ejected_max(self.members.len()) {
            let event = self.members[index].health.eject(&self.settings, now);
            self.ejected += 1;
            self.changes.push(self.members[index].change(event));
        }
    }

    /// What happened since this was called the last time.
    pub fn take_changes(&mut self) -> Vec<Change<K>> {
        mem::take(&mut self.changes)
    }

    /// All replicas. Whose time is over is shown as returned, although it is told only when the next call comes.
    pub fn snapshot(&self, now: Moment) -> Vec<Snapshot<K>> {
        let show = |Member { replica, health }: &Member<K>| Snapshot {
            replica: replica.address.clone(),
            in_flight: replica.in_flight(),
            failures: health.failures(),
            returns_in: health.ejected_until().map(|until| until.since(now)).filter(|left| !left.is_zero()),
            ejections: health.ejections(),
        };
        self.members.iter().map(show).collect()
    }

    /// Lets return whose time ends at this moment or has ended.
    fn readmit_until(&mut self, moment: Moment) {
        for member in &mut self.members {
            if member.health.ejected_until().is_some_and(|until| until <= moment) {
                let event = member.health.readmit();
                self.ejected -= 1;
                self.changes.push(member.change(event));
            }
        }
    }
}

impl<K: Clone> Member<K> {
    fn change(&self, event: Event) -> Change<K> {
        Change { replica: self.replica.address.clone(), event, generation: self.health.generation() }
    }
}

/// Of two different ones at random the one with fewer calls in flight. A slice costs the same however long it is; what
/// is filtered is walked through three times, and some tens of replicas are not worth an index that would spare that.
fn less_loaded<'a, K: 'a>(
    candidates: impl Iterator<Item = &'a Member<K>> + Clone,
    rng: &mut impl Rng,
) -> Option<&'a Member<K>> {
    let nth = |n| candidates.clone().nth(n);
    let count = candidates.clone().count();
    if count < 2 {
        return nth(0);
    }
    // The second is so many places after the first, around the end: every pair is equally likely in either order, so
    // the first of two with the same load is as random as the second.
    let first = rng.random_range(0..count);
    let second = (first + rng.random_range(1..count)) % count;
    let (first, second) = (nth(first)?, nth(second)?);
    Some(if second.replica.in_flight() < first.replica.in_flight() { second } else { first })
}
