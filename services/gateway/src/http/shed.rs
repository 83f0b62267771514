//! Whether there is room for a request now: when there is too much to do, the least urgent is refused first.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use stampede_contracts::Class;
use stampede_load_shed::Sample;
use stampede_resilience::busy;

use super::extract::PRIORITY;
use crate::app::App;
use crate::domain::priority;

/// Lets a request in, or refuses it within some milliseconds. What is about an order is always let in: its time is that
/// of the saga it waits for, which says nothing of how much there is to do here, and its buyer is the nearest to a
/// ticket.
pub async fn shed(State(app): State<App>, request: Request, next: Next) -> Response {
    let wish = request.headers().get(PRIORITY).and_then(|value| value.to_str().ok());
    let template = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let class = priority::class(app.classes.class(request.method(), template), wish);
    if class == Class::Pay {
        return next.run(request).await;
    }
    let permit = match app.gate.acquire(class).await {
        Ok(permit) => permit,
        Err(refusal) => return busy(&refusal).into_response(),
    };
    let started = Instant::now();
    let response = next.run(request).await;
    permit.record(sample(response.status(), started.elapsed(), || app.gate.snapshot().baseline));
    response
}

/// Reads show how slow everything has become; an answer that came too late is itself a sign of overload. Not
/// where the client's own deadline came sooner than answers do without a queue: otherwise a client in a hurry would shrink
/// the limit for all.
fn sample(status: StatusCode, lasted: Duration, baseline: impl FnOnce() -> Option<Duration>) -> Sample {
    match status {
        StatusCode::OK => Sample::Success,
        StatusCode::GATEWAY_TIMEOUT if baseline().is_none_or(|usual| lasted >= usual) => Sample::Overload,
        _ => Sample::Ignore,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_in_a_hurry_is_no_sign_of_overload() {
        const MS: Duration = Duration::from_millis(1);
        let sample = |status, millis: u32, usual: Option<Duration>| sample(status, millis * MS, || usual);
        assert_eq!(sample(StatusCode::GATEWAY_TIMEOUT, 19, Some(20 * MS)), Sample::Ignore);
        assert_eq!(sample(StatusCode::GATEWAY_TIMEOUT, 20, Some(20 * MS)), Sample::Overload);
        assert_eq!(
            sample(StatusCode::GATEWAY_TIMEOUT, 1, None),
            Sample::Overload,
            "nothing was measured yet"
        );
        assert_eq!(sample(StatusCode::OK, 1, Some(20 * MS)), Sample::Success);
        assert_eq!(sample(StatusCode::SERVICE_UNAVAILABLE, 99, Some(20 * MS)), Sample::Ignore);
    }
}
