//! Whether there is room for a request now: when there is too much to do, the least urgent is refused first.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use stampede_contracts::Class;
use stampede_load_shed::{Permit, Sample};
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
    let response = next.run(request).await;
    learn(permit, response.status());
    response
}

/// Reads are what tells how slow everything has become; an answer that came too late is a sign of overload by itself.
fn learn(permit: Permit, status: StatusCode) {
    permit.record(match status {
        StatusCode::OK => Sample::Success,
        StatusCode::GATEWAY_TIMEOUT => Sample::Overload,
        _ => Sample::Ignore,
    });
}
