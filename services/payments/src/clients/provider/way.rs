//! The way to the provider: one exchange, and the layers around it.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::{RequestBuilder, Response, StatusCode};
use stampede_contracts::function::Keyed;
use stampede_deadline::Clock;
use stampede_resilience::{
    BreakerPolicy, BulkheadPolicy, Destination, DestinationPolicy, Error, InvalidPolicy, Meaning,
};
use tower::{Layer, Service, ServiceExt};

use super::{ANSWER_MAX_BYTES, Unclear};

/// An answer that says something.
pub(super) type Exchanged = (StatusCode, Vec<u8>);

/// A request and how it is called.
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) request: RequestBuilder,
}

/// How the provider is called: once. An operation whose outcome is unknown is a row that comes again by itself, much
/// later than a retry would. When half of the calls fail nobody calls for a moment, so that workers do not all wait for
/// time-outs; the few places keep a provider that hangs from taking every connection.
fn policy(timeout: Duration) -> DestinationPolicy {
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    DestinationPolicy {
        deadline_ms: timeout_ms.saturating_mul(2),
        attempt_ms: timeout_ms,
        // A provider is called less often than a service, and its outages last longer.
        breaker: BreakerPolicy { min_calls: 10, open_ms: 500, ..DestinationPolicy::DEFAULT.breaker },
        bulkhead: BulkheadPolicy { places: 64, waiting_max: 256, wait_ms: timeout_ms },
        ..DestinationPolicy::DEFAULT
    }
}

/// The provider as a destination.
pub(super) fn destination(timeout: Duration) -> Result<Destination<Keyed>, InvalidPolicy> {
    Destination::try_new("provider", &policy(timeout), Clock::system())
}

/// Makes one call, if it is made at all.
pub(super) async fn exchange(provider: &Destination<Keyed>, call: Call) -> Result<Exchanged, Unclear> {
    provider.single(meaning).layer(Way).oneshot(call).await.map_err(|error| match error {
        Error::Inner(unclear) => unclear,
        Error::TimedOut => Unclear::TimedOut,
        Error::Open(_) | Error::Crowded(_) => Unclear::NotCalled,
    })
}

/// What is no definite answer is a failure: the provider is there to give one.
fn meaning(answer: Result<&Exchanged, &Unclear>) -> Meaning {
    match answer {
        Ok((StatusCode::TOO_MANY_REQUESTS, _)) => Meaning::Busy(None),
        Ok(_) => Meaning::Answer,
        Err(_) => Meaning::Unavailable(None),
    }
}

/// The way without any layer.
#[derive(Clone)]
struct Way;

impl Service<Call> for Way {
    type Response = Exchanged;
    type Error = Unclear;
    type Future = BoxFuture<'static, Result<Exchanged, Unclear>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unclear>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, Call { name, request }: Call) -> Self::Future {
        send(name, request).boxed()
    }
}

async fn send(name: &'static str, request: RequestBuilder) -> Result<Exchanged, Unclear> {
    let response = request.send().await?;
    let status = response.status();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Unclear::Credentials(status)),
        status if status.is_server_error() => Err(Unclear::Status(status)),
        status => Ok((status, body(name, response).await?)),
    }
}

async fn body(name: &'static str, mut response: Response) -> Result<Vec<u8>, Unclear> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > ANSWER_MAX_BYTES {
            return Err(Unclear::Malformed(name));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_out_that_can_be_set_makes_a_policy() {
        for millis in [1, 3_000, 300_000] {
            assert!(destination(Duration::from_millis(millis)).is_ok(), "{millis}");
        }
        assert!(destination(Duration::from_secs(100_000)).is_err());
    }

    #[test]
    fn an_answer_is_no_failure_and_no_answer_is() {
        let answered = |status: StatusCode| meaning(Ok(&(status, Vec::new())));
        assert_eq!(answered(StatusCode::CREATED), Meaning::Answer);
        assert_eq!(answered(StatusCode::PAYMENT_REQUIRED), Meaning::Answer);
        assert_eq!(answered(StatusCode::NOT_FOUND), Meaning::Answer);
        assert_eq!(answered(StatusCode::TOO_MANY_REQUESTS), Meaning::Busy(None));
        assert_eq!(meaning(Err(&Unclear::TimedOut)), Meaning::Unavailable(None));
    }
}
