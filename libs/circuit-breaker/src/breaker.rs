//! The handle that everybody shares who calls the same destination.

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use stampede_deadline::{Clock, Moment};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::machine::Machine;
use crate::silence::Silence;
use crate::{Change, Forced, Outcome, Policy, Refused, Snapshot, State};

/// A circuit breaker. Clones are handles of one and the same.
#[derive(Clone)]
pub struct CircuitBreaker(Arc<Handle>);

/// How a service and its calls hold the circuit. A service that makes more than one call has a handle of its own: if the
/// calls of all threads were counted in one `Arc`, they would spend most of their time on fighting for that count.
struct Handle {
    shared: Arc<Shared>,
    /// Where its calls are counted.
    lane: usize,
}

/// More cores than this share the lanes.
const LANES_MAX: usize = 8;

struct Shared {
    machine: Machine,
    silence: Silence,
    handles: AtomicUsize,
    clock: Clock,
    /// Wakes calls that wait for an inner service to get ready when the circuit opens.
    opened: Arc<Notify>,
}

impl CircuitBreaker {
    /// A closed circuit, on the system's clock.
    pub fn new(policy: Policy) -> Self {
        Self::observed(policy, Clock::system(), |_| {})
    }

    /// A closed circuit on a clock of one's choice. `on_change` is told of every change of state exactly once and in
    /// order. For that it is called under the lock of the circuit: it must be short, and must neither panic nor call back.
    pub fn observed(
        policy: Policy,
        clock: Clock,
        on_change: impl Fn(Change) + Send + Sync + 'static,
    ) -> Self {
        let opened = Arc::new(Notify::new());
        let waiting = Arc::clone(&opened);
        let machine = Machine::new(
            policy,
            available_parallelism().map_or(1, NonZero::get).min(LANES_MAX),
            Box::new(move |change| {
                if change.to == State::Open {
                    waiting.notify_waiters();
                }
                on_change(change);
            }),
        );
        let silence = Silence::new(machine.lanes());
        let shared = Shared { machine, silence, handles: AtomicUsize::new(1), clock, opened };
        Self(Arc::new(Handle { shared: Arc::new(shared), lane: 0 }))
    }

    /// Lets a call pass or refuses it. Who is let pass reports how it went with [`Permit::record`].
    ///
    /// # Errors
    /// [`Refused`] while the circuit is open, or half-open with all its probes on their way.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit, Refused> {
        let generation = self.0.shared.machine.admit(|| self.0.shared.clock.now())?;
        Ok(Permit { handle: Arc::clone(&self.0), generation, life: Life::Waiting, waits_since: None })
    }

    /// Holds the circuit open or closed whatever the calls say, or hands it back with `None`: from forced open it goes
    /// on half-open, from forced closed it goes on closed with nothing counted.
    pub fn force(&self, forced: Option<Forced>) {
        self.0.shared.machine.force(forced, self.0.shared.clock.now());
    }

    /// Puts another policy in the place of the present one. What was counted stays, unless the window differs so much that
    /// it is counted in other buckets; an open circuit stays open for as long as if it had opened with this policy.
    pub fn set_policy(&self, policy: Policy) {
        self.0.shared.machine.set_policy(policy);
    }

    /// What there is to show. Takes the lock for a moment.
    pub fn snapshot(&self) -> Snapshot {
        self.0.shared.machine.snapshot(self.0.shared.clock.now())
    }

    /// The same through a handle of its own.
    pub(crate) fn apart(&self) -> Self {
        let shared = Arc::clone(&self.0.shared);
        let lane = shared.handles.fetch_add(1, Ordering::Relaxed) % shared.machine.lanes();
        Self(Arc::new(Handle { shared, lane }))
    }

    /// What a call would be told now if it were refused.
    #[inline]
    pub(crate) fn refusal(&self) -> Option<Refused> {
        self.0.shared.machine.refusal(|| self.0.shared.clock.now())
    }

    /// Ends when the circuit opens the next time after this was called.
    pub(crate) fn opened(&self) -> OwnedNotified {
        Arc::clone(&self.0.shared.opened).notified_owned()
    }
}

impl Shared {
    /// Whether the callee hangs, judged by a call without an answer that waited since then.
    #[cold]
    fn is_hanging(&self, waits_since: Option<Moment>) -> bool {
        let policy = self.machine.policy();
        policy.hangs_after.is_some_and(|hangs_after| {
            self.silence.is_hang(waits_since, self.clock.now(), hangs_after, policy.trip.window())
        })
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CircuitBreaker").field(&self.snapshot()).finish()
    }
}

/// A call that was let pass.
///
/// Dropped without an outcome it counts as the policy says ([`Policy::when_dropped`]), and as a failure if its thread
/// is panicking: a callee that makes its callers panic is not well.
#[must_use = "a permit that is dropped counts as a dropped call"]
pub struct Permit {
    handle: Arc<Handle>,
    generation: u64,
    life: Life,
    /// Since it was found that there is no answer yet.
    waits_since: Option<Moment>,
}

/// Where a call is in its life.
#[derive(Clone, Copy, PartialEq)]
enum Life {
    Waiting,
    /// The callee's code runs. A permit that is found here when it is dropped was left by a panic, even if the panic
    /// has been caught since.
    Running,
    Over,
}

impl Permit {
    /// Says how the call went. Ignored if the circuit has changed its state since the call began.
    #[inline]
    pub fn record(mut self, outcome: Outcome) {
        self.settle(outcome);
    }

    /// The callee has not answered yet.
    #[inline]
    pub(crate) fn waits(&mut self) {
        if self.waits_since.is_none() {
            self.waits_since = Some(self.handle.shared.clock.now());
        }
    }

    /// Runs the callee's code.
    pub(crate) fn guard<T>(&mut self, run: impl FnOnce() -> T) -> T {
        self.life = Life::Running;
        let answer = run();
        self.life = Life::Waiting;
        answer
    }

    #[inline]
    pub(crate) fn settle(&mut self, outcome: Outcome) {
        let Handle { shared, lane } = &*self.handle;
        match outcome {
            Outcome::Success | Outcome::Neutral => {
                shared.silence.end(*lane, self.waits_since.map(|_| shared.clock.now()));
                self.count(outcome);
            }
            Outcome::Unanswered | Outcome::Failure => {
                // A failure may be the end of a call's time: then it was silence as well.
                let hangs = shared.is_hanging(self.waits_since);
                self.count(if hangs { Outcome::Failure } else { outcome });
            }
        }
    }

    #[inline]
    fn count(&mut self, outcome: Outcome) {
        self.life = Life::Over;
        let Handle { shared, lane } = &*self.handle;
        shared.machine.settle(*lane, self.generation, outcome, || shared.clock.now());
    }

    #[cold]
    fn abandon(&mut self) {
        if self.life == Life::Running || std::thread::panicking() {
            return self.count(Outcome::Failure);
        }
        match self.handle.shared.machine.policy().when_dropped {
            Outcome::Unanswered => self.settle(Outcome::Unanswered),
            // Whatever it counts as, there was no answer.
            counted => self.count(counted),
        }
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if self.life != Life::Over {
            self.abandon();
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("generation", &self.generation).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Counts, Trip};

    fn breaker(when_dropped: Outcome) -> CircuitBreaker {
        CircuitBreaker::new(Policy::new(Trip::consecutive(3).unwrap()).when_dropped(when_dropped))
    }

    #[test]
    fn a_dropped_call_counts_as_the_policy_says() {
        for (outcome, failures) in [(Outcome::Failure, 2), (Outcome::Neutral, 1), (Outcome::Success, 0)] {
            let breaker = breaker(outcome);
            breaker.try_acquire().unwrap().record(Outcome::Failure);
            drop(breaker.try_acquire().unwrap());
            assert_eq!(breaker.snapshot().counts.failures, failures, "{outcome:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_answer_ends_a_silence_and_a_dropped_call_is_none() {
        let second = Duration::from_secs(1);
        for (answer, failures) in [(Some(Outcome::Success), 0), (Some(Outcome::Neutral), 0), (None, 1)] {
            let policy = Policy::new(Trip::consecutive(9).unwrap()).hangs_after(2 * second);
            let breaker = CircuitBreaker::observed(policy, Clock::tokio(), |_| {});
            for end in [Some(Outcome::Unanswered), answer, Some(Outcome::Unanswered)] {
                let mut permit = breaker.try_acquire().unwrap();
                permit.waits();
                tokio::time::advance(second).await;
                match end {
                    Some(outcome) => permit.record(outcome),
                    None => drop(permit),
                }
            }
            assert_eq!(breaker.snapshot().counts.failures, failures, "{answer:?}");
        }
    }

    #[test]
    fn a_permit_that_a_panic_drops_is_a_failure() {
        let breaker = breaker(Outcome::Neutral);
        let permit = breaker.try_acquire().unwrap();
        std::thread::spawn(move || {
            let _held = permit;
            panic!("as it has to in this test");
        })
        .join()
        .unwrap_err();
        assert_eq!(breaker.snapshot().counts, Counts { calls: 1, failures: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_makes_room_for_the_next() {
        let policy = Policy::new(Trip::consecutive(1).unwrap());
        let breaker = CircuitBreaker::observed(policy, Clock::tokio(), |_| {});
        breaker.try_acquire().unwrap().record(Outcome::Failure);
        tokio::time::advance(Duration::from_secs(1)).await;

        let probe = breaker.try_acquire().unwrap();
        assert_eq!(breaker.try_acquire().unwrap_err().retry_after, Duration::from_secs(1));
        drop(probe);
        assert_eq!(breaker.snapshot().state, State::HalfOpen);
        breaker.try_acquire().unwrap().record(Outcome::Success);
        assert_eq!(breaker.snapshot().state, State::Closed);
    }
}
