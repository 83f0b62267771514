//! What is asked of the layers. A figure that falls short is shown as such, and fails nothing: machines are noisy.

/// One figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) group: &'static str,
    /// The benchmark of ours.
    pub(crate) ours: &'static str,
    /// Group and name of what it is held against.
    pub(crate) peer: Option<(&'static str, &'static str)>,
    pub(crate) bound: Bound,
}

/// How good it has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// At most this many times the peer's.
    Ratio(f64),
    /// Less than the peer's.
    Below,
    /// At most so many nanoseconds above the peer's.
    Above(f64),
    /// At most so many nanoseconds, whatever the peer needs.
    Nanos(f64),
    /// Nothing is asked.
    Shown,
}

const fn beside(group: &'static str, ours: &'static str, peer: &'static str, bound: Bound) -> Asked {
    Asked { group, ours, peer: Some((group, peer)), bound }
}

const fn alone(group: &'static str, ours: &'static str, bound: Bound) -> Asked {
    Asked { group, ours, peer: None, bound }
}

const fn twice(one: &'static str, two: &'static str) -> Asked {
    Asked { group: "contention", ours: two, peer: Some(("contention", one)), bound: Bound::Ratio(3.0) }
}

const TWO_THIRDS: f64 = 2.0 / 3.0;

/// All of them.
pub(crate) const ASKED: &[Asked] = &[
    alone("ground", "empty service", Bound::Shown),
    alone("ground", "std clock", Bound::Shown),
    alone("ground", "our clock", Bound::Shown),
    beside("timeout", "ours", "tower", Bound::Ratio(TWO_THIRDS)),
    alone("timeout", "ours", Bound::Nanos(25.0)),
    beside("timeout", "ours", "tower-resilience", Bound::Shown),
    beside("bulkhead", "ours", "tower", Bound::Ratio(TWO_THIRDS)),
    alone("bulkhead", "ours", Bound::Nanos(25.0)),
    beside("bulkhead", "ours", "tower-resilience", Bound::Shown),
    beside("circuit breaker", "ours, consecutive", "tower-resilience", Bound::Ratio(1.0 / 6.0)),
    beside("circuit breaker", "ours, consecutive", "failsafe", Bound::Below),
    beside("circuit breaker", "ours, rate", "tower-resilience", Bound::Ratio(1.0 / 6.0)),
    beside("circuit breaker", "ours, rate", "failsafe", Bound::Below),
    alone("circuit breaker", "ours, rate", Bound::Nanos(30.0)),
    beside("circuit breaker", "ours, rate, a million calls in the window", "ours, rate", Bound::Ratio(1.25)),
    beside("adaptive limit", "ours", "tower-resilience, AIMD", Bound::Ratio(0.4)),
    beside("adaptive limit", "ours", "tower-resilience, Vegas", Bound::Ratio(0.4)),
    alone("adaptive limit", "ours", Bound::Nanos(60.0)),
    alone("retry", "ours", Bound::Nanos(5.0)),
    beside("retry", "ours", "tower", Bound::Shown),
    beside("retry", "ours", "tower-resilience", Bound::Shown),
    beside("retry with budget", "ours", "tower", Bound::Ratio(1.0 / 3.0)),
    alone("retry with budget", "ours", Bound::Nanos(15.0)),
    beside("rate limit", "ours", "governor", Bound::Above(10.0)),
    Asked { group: "hedge", ours: "ours", peer: Some(("timeout", "tower")), bound: Bound::Ratio(TWO_THIRDS) },
    alone("hedge", "ours", Bound::Nanos(25.0)),
    beside("hedge", "ours", "tower-resilience", Bound::Shown),
    alone("whole stack", "ours, once", Bound::Nanos(200.0)),
    alone("whole stack", "ours, repeating", Bound::Nanos(200.0)),
    alone("whole stack", "ours, hedging", Bound::Nanos(200.0)),
    twice("timeout/1", "timeout/2"),
    twice("bulkhead/1", "bulkhead/2"),
    twice("retry with budget/1", "retry with budget/2"),
    twice("circuit breaker, consecutive/1", "circuit breaker, consecutive/2"),
    twice("circuit breaker, rate/1", "circuit breaker, rate/2"),
    twice("adaptive limit/1", "adaptive limit/2"),
    twice("hedge/1", "hedge/2"),
    twice("rate limit/1", "rate limit/2"),
    twice("whole stack/1", "whole stack/2"),
];
