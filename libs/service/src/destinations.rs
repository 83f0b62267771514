//! The page of the admin listener that shows whom this process calls, and how that goes.

use axum::Json;
use serde::Serialize;
use stampede_resilience::{DestinationPolicy, Health, destinations};

/// One destination, for an operator and for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Destination {
    name: String,
    circuit: String,
    /// Milliseconds until it is called again; absent while it is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u128>,
    opened: u64,
    calls_in_window: u32,
    failures_in_window: u32,
    places: u32,
    taken: u32,
    waiting: usize,
    retry_tokens: u64,
    hedge_delay_ms: u128,
    hedged: u64,
    answered: u64,
    failed: u64,
    timed_out: u64,
    refused_open: u64,
    refused_crowded: u64,
    policy: DestinationPolicy,
}

impl From<Health> for Destination {
    fn from(Health { name, breaker, bulkhead, budget, hedge, totals, policy }: Health) -> Self {
        Self {
            name: name.into(),
            circuit: format!("{:?}", breaker.state).to_lowercase(),
            retry_after_ms: breaker.retry_after.map(|after| after.as_millis()),
            opened: breaker.opened,
            calls_in_window: breaker.counts.calls,
            failures_in_window: breaker.counts.failures,
            places: bulkhead.places,
            taken: bulkhead.taken,
            waiting: bulkhead.waiting,
            retry_tokens: budget,
            hedge_delay_ms: hedge.delay.as_millis(),
            hedged: hedge.hedged,
            answered: totals.answered,
            failed: totals.failed,
            timed_out: totals.timed_out,
            refused_open: totals.open,
            refused_crowded: totals.crowded,
            policy,
        }
    }
}

pub(crate) async fn show() -> Json<Vec<Destination>> {
    Json(destinations().into_iter().map(Destination::from).collect())
}
