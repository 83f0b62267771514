//! The layers around a call, in their order.

use stampede_bulkhead::{BulkheadLayer, BulkheadService};
use stampede_circuit_breaker::{CircuitBreakerLayer, CircuitBreakerService};
use stampede_deadline::{Timeout, TimeoutLayer};
use stampede_hedge::{HedgeLayer, HedgeService};
use stampede_retry::{Retry, RetryLayer};
use tower::Layer;

use crate::{Count, CountLayer, Sees};

/// A service behind the layers of calls that are made once.
pub type Single<S, M> = Count<Timeout<Guard<S, M>>>;
/// A service behind the layers of calls that may be repeated.
pub type Repeated<S, M> = Count<Timeout<Retry<Guard<S, M>, Sees<M>>>>;
/// A service behind the layers of calls that only read.
pub type Hedged<S, M> = Count<Timeout<Retry<HedgeService<Guard<S, M>, Sees<M>>, Sees<M>>>>;
/// What every attempt goes through.
type Guard<S, M> = CircuitBreakerService<BulkheadService<Timeout<S>>, Sees<M>>;

/// The stack of calls that are made once.
#[derive(Clone, Debug)]
pub struct SingleStack<M> {
    pub(crate) count: CountLayer,
    pub(crate) deadline: TimeoutLayer,
    pub(crate) breaker: CircuitBreakerLayer<Sees<M>>,
    pub(crate) bulkhead: BulkheadLayer,
    pub(crate) attempt: TimeoutLayer,
}

impl<M: Clone> SingleStack<M> {
    fn guard<S>(&self, inner: S) -> Guard<S, M> {
        // Innermost, so that the wait for a place costs an attempt nothing, and its end is a failure that the breaker
        // counts: a callee that hangs opens the circuit.
        let inner = self.attempt.layer(inner);
        // Inside of the breaker, so that nobody waits for a place to call what is not called now. That our own places
        // are taken is no failure of the callee.
        let inner = self.bulkhead.layer(inner);
        // Inside of the retries, so that every attempt is counted, and none is made once the circuit is open.
        self.breaker.layer(inner)
    }
}

impl<S, M: Clone> Layer<S> for SingleStack<M> {
    type Service = Single<S, M>;

    fn layer(&self, inner: S) -> Self::Service {
        let inner = self.guard(inner);
        // Around everything that waits: queue, pause and attempt all spend the caller's time.
        let inner = self.deadline.layer(inner);
        // Outermost: what is counted is what the caller sees.
        self.count.layer(inner)
    }
}

/// The stack of calls that may be repeated.
#[derive(Clone, Debug)]
pub struct RepeatingStack<M> {
    pub(crate) single: SingleStack<M>,
    pub(crate) retry: RetryLayer<Sees<M>>,
}

impl<S, M: Clone> Layer<S> for RepeatingStack<M> {
    type Service = Repeated<S, M>;

    fn layer(&self, inner: S) -> Self::Service {
        let SingleStack { count, deadline, .. } = &self.single;
        // Around breaker and bulkhead: a call that pauses between attempts keeps no place.
        let inner = self.retry.layer(self.single.guard(inner));
        // Around the retries: one deadline for all attempts.
        let inner = deadline.layer(inner);
        // Outermost: what is counted is what the caller sees.
        count.layer(inner)
    }
}

/// The stack of calls that only read.
#[derive(Clone, Debug)]
pub struct HedgingStack<M> {
    pub(crate) repeating: RepeatingStack<M>,
    pub(crate) hedge: HedgeLayer<Sees<M>>,
}

impl<S, M: Clone> Layer<S> for HedgingStack<M> {
    type Service = Hedged<S, M>;

    fn layer(&self, inner: S) -> Self::Service {
        let RepeatingStack { single, retry } = &self.repeating;
        // Around breaker and bulkhead, so that a hedge is an attempt like any other; inside of the retries, so that a
        // pause is not mistaken for a slow answer.
        let inner = retry.layer(self.hedge.layer(single.guard(inner)));
        // Around the retries: one deadline for all attempts.
        let inner = single.deadline.layer(inner);
        // Outermost: what is counted is what the caller sees.
        single.count.layer(inner)
    }
}
