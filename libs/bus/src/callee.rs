//! Whom this process calls over NATS: one circuit, one retry budget and one set of places for each, however many functions
//! it offers.

use stampede_contracts::Function;
use stampede_resilience::{
    BreakerPolicy, BudgetPolicy, BulkheadPolicy, Destination, DestinationPolicy, InvalidPolicy, Meaning,
    RepeatPolicy,
};

use crate::{Bus, CallError};

/// How a service is called over request-reply that has no policy of its own.
///
/// The request's deadline and the function's own time are the bounds that count; these are above them. An owner that
/// moved is back within milliseconds, a restarted one within a second: that is what the pauses are for. What is repeated
/// then costs nobody anything, so the budget is wide; it is there for a service that answers, badly.
const SERVICE: DestinationPolicy = DestinationPolicy {
    deadline_ms: 600_000,
    attempt_ms: 30_000,
    retry: RepeatPolicy { attempts_max: 1_000, ..DestinationPolicy::DEFAULT.retry },
    budget: BudgetPolicy { per_mille: 200, reserve: 500, min_per_second: 50 },
    bulkhead: BulkheadPolicy { places: 512, waiting_max: 1_024, wait_ms: 1_000 },
    ..DestinationPolicy::DEFAULT
};

/// How messages are published where there is no other policy. A batch has a time of its own, which is shorter; whoever
/// publishes comes again by itself, and a stream elects a leader within seconds.
const JETSTREAM: DestinationPolicy = DestinationPolicy {
    deadline_ms: 8_000,
    attempt_ms: 6_000,
    breaker: BreakerPolicy { min_calls: 5, open_max_ms: 1_000, ..DestinationPolicy::DEFAULT.breaker },
    ..DestinationPolicy::DEFAULT
};

impl Bus {
    /// The service that offers `F`, to be called as its guarantee allows.
    pub(crate) fn callee<F: Function>(&self) -> Result<Destination<F::Guarantee>, InvalidPolicy> {
        Ok(self.destinations().get_or(F::SERVICE, &SERVICE)?.offering::<F>())
    }

    /// The streams, all of them one destination: they share their servers.
    pub(crate) fn streams(&self) -> Result<Destination<()>, InvalidPolicy> {
        self.destinations().get_or("jetstream", &JETSTREAM)
    }
}

/// Why an attempt has no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// The callee, or the way there.
    #[error(transparent)]
    Call(CallError),
    /// The caller had less time than the function promises to need.
    #[error("the caller's time is over")]
    OutOfTime,
}

/// What an answer means to breaker and retries.
pub(crate) fn meaning<T>(answer: Result<&T, &Failed>) -> Meaning {
    let error = match answer {
        Ok(_) => return Meaning::Answer,
        Err(Failed::OutOfTime) => return Meaning::Unknown,
        Err(Failed::Call(error)) => error,
    };
    match error {
        CallError::Busy => Meaning::Busy(None),
        CallError::Unavailable(_) | CallError::TimedOut => Meaning::Unavailable(None),
        CallError::Failed(_) => Meaning::Broken,
        // A request or an answer that cannot be read is a fault in a program, and says nothing of its health.
        CallError::Refused(_) | CallError::Malformed(_) => Meaning::Answer,
    }
}
