//! One attempt, without any of the layers around it: picks a replica and asks it.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::Response;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::StatusCode;
use stampede_balance::Outcome;
use stampede_deadline::{Deadline, Patience};
use stampede_resilience::Meaning;
use tower::Service;
use tracing::{Instrument, Span, field};

use super::exchange::{Failure, exchange};
use super::{Callee, Delivery, Outgoing, Upstream};

/// A request and how it is asked. Attempts share it, and know of each other whom they asked.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) service: &'static str,
    pub(super) callee: Arc<Callee>,
    /// The longest time of one attempt.
    deadline: Duration,
    /// Of whoever asks; the layers shorten what an attempt sees of it.
    caller: Option<Deadline>,
    pub(super) request: Arc<Outgoing>,
    delivery: Delivery,
    tried: Arc<Mutex<Vec<Arc<str>>>>,
}

impl Call {
    pub(super) fn new(
        service: &'static str,
        callee: Arc<Callee>,
        deadline: Duration,
        request: Outgoing,
        delivery: Delivery,
    ) -> Self {
        let (caller, request) = (stampede_deadline::current(), Arc::new(request));
        Self { service, callee, deadline, caller, request, delivery, tried: Arc::default() }
    }
}

/// The way to whoever answers.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) upstream: Upstream,
}

impl Service<Call> for Way {
    type Response = Response;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Response, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let upstream = self.upstream.clone();
        async move { upstream.attempt(call).await }.boxed()
    }
}

/// What an answer says of the service. That a saga, or whoever waits behind it, took too long (504) says nothing.
pub(super) fn meaning(answer: Result<&Response, &Failure>) -> Meaning {
    match answer {
        Ok(response) => match response.status() {
            // When to come again is said to the client, who gets to see it: in here another replica may have room at once,
            // and the budget bounds what asking costs.
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Meaning::Busy(None),
            StatusCode::GATEWAY_TIMEOUT => Meaning::Unknown,
            status if status.is_server_error() => Meaning::Broken,
            _ => Meaning::Answer,
        },
        Err(Failure::Unreachable(_) | Failure::Broken(_) | Failure::TimedOut) => Meaning::Unavailable(None),
        // Whoever takes work says so in its heartbeat: there is nobody to be protected.
        Err(Failure::Nobody) => Meaning::Busy(None),
        Err(Failure::OutOfTime | Failure::Unsendable(_)) => Meaning::Unknown,
    }
}

impl Upstream {
    pub(super) async fn attempt(&self, call: Call) -> Result<Response, Failure> {
        let (pick, attempts) = {
            let mut tried = call.tried.lock().unwrap_or_else(PoisonError::into_inner);
            let pick = call.callee.replicas.pick(&tried).ok_or(Failure::Nobody)?;
            tried.push(Arc::clone(pick.replica()));
            (pick, tried.len())
        };
        let span = tracing::info_span!(
            "upstream",
            otel.name = format!("{} {}", call.request.method, call.service),
            otel.kind = "client",
            otel.status_code = field::Empty,
            http.request.method = call.request.method.as_str(),
            http.request.resend_count = attempts - 1,
            http.response.status_code = field::Empty,
            server.address = &**pick.replica(),
            error.r#type = field::Empty,
        );
        let mut counted = self.metrics.attempt(call.service);
        let result = self.within_time(&call, pick.replica()).instrument(span.clone()).await;
        counted.outcome(outcome(&result, &span));
        pick.record(of_replica(&result));
        result
    }

    /// Waits as long as the function may take, and no longer than the caller does.
    async fn within_time(&self, call: &Call, base: &str) -> Result<Response, Failure> {
        let patience = Patience::of(call.caller, call.deadline);
        let own = Deadline::after(call.deadline);
        let deadline = stampede_deadline::current().map_or(own, |current| current.earlier(own));
        let asking = exchange(&self.client, base, &call.request, call.delivery);
        match tokio::time::timeout_at(deadline.instant(), stampede_deadline::scope(deadline, asking)).await {
            Ok(result) => result,
            Err(_elapsed) if patience.was_too_short() => Err(Failure::OutOfTime),
            Err(_elapsed) => Err(Failure::TimedOut),
        }
    }
}

/// What the attempt says of the replica.
fn of_replica(result: &Result<Response, Failure>) -> Outcome {
    match meaning(result.as_ref()) {
        Meaning::Answer => Outcome::Success,
        Meaning::Unavailable(_) | Meaning::Broken => Outcome::Failure,
        Meaning::Busy(_) | Meaning::Unknown => Outcome::Neutral,
    }
}

fn outcome(result: &Result<Response, Failure>, span: &Span) -> &'static str {
    let outcome = match result {
        Ok(response) => {
            span.record("http.response.status_code", response.status().as_u16());
            match response.status().as_u16() {
                500.. => "failed",
                400..500 => "refused",
                _ => "ok",
            }
        }
        Err(failure) => failure.as_str(),
    };
    if !matches!(outcome, "ok" | "refused") {
        span.record("error.type", outcome);
        span.record("otel.status_code", "ERROR");
    }
    outcome
}
