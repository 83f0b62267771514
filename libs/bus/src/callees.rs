//! The services this process calls: one circuit, one retry budget and one set of places each, however many functions
//! they offer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use stampede_contracts::Function;
use stampede_deadline::Clock;
use stampede_resilience::{
    BudgetPolicy, BulkheadPolicy, Destination, DestinationPolicy, InvalidPolicy, Meaning, RepeatPolicy,
};

use crate::CallError;

/// How a service is called over request-reply.
///
/// The request's deadline and the function's own time are the bounds that count; these are above them. An owner that
/// moved is back within milliseconds, a restarted one within a second: that is what the pauses are for. What is repeated
/// then costs nobody anything, so the budget is wide; it is there for a service that answers, badly.
const POLICY: DestinationPolicy = DestinationPolicy {
    deadline_ms: 600_000,
    attempt_ms: 30_000,
    retry: RepeatPolicy { attempts_max: 1_000, ..DestinationPolicy::DEFAULT.retry },
    budget: BudgetPolicy { per_mille: 200, reserve: 500, min_per_second: 50 },
    bulkhead: BulkheadPolicy { places: 512, waiting_max: 1_024, wait_ms: 1_000 },
    ..DestinationPolicy::DEFAULT
};

/// The callees known so far, by name. Their number is that of the services in the contracts.
#[derive(Debug, Default)]
pub(crate) struct Callees(Mutex<HashMap<&'static str, Destination<()>>>);

impl Callees {
    /// The service that offers `F`, to be called as its guarantee allows.
    pub(crate) fn of<F: Function>(&self) -> Result<Destination<F::Guarantee>, InvalidPolicy> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(callee) = known.get(F::SERVICE) {
            return Ok(callee.offering::<F>());
        }
        let callee = Destination::try_new(F::SERVICE, &POLICY, Clock::system())?;
        known.insert(F::SERVICE, callee.clone());
        Ok(callee.offering::<F>())
    }
}

/// What an answer means to breaker and retries.
pub(crate) fn meaning<T>(answer: Result<&T, &CallError>) -> Meaning {
    match answer {
        Ok(_) => Meaning::Answer,
        Err(CallError::Busy) => Meaning::Busy(None),
        Err(CallError::Unavailable(_) | CallError::TimedOut) => Meaning::Unavailable(None),
        Err(CallError::Refused(problem)) if problem.code.status() >= 500 => Meaning::Broken,
        // A request or an answer that cannot be read is a fault in a program, and says nothing of its health.
        Err(CallError::Refused(_) | CallError::Malformed(_)) => Meaning::Answer,
    }
}
