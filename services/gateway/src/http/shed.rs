//! Whether there is room for a request now: when there is too much to do, the least urgent is refused first.

use axum::extract::{Request, State};
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
    let class = priority::class(of_path(request.uri().path()), wish);
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

/// The class of the functions behind a path.
fn of_path(path: &str) -> Class {
    let below =
        |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if below("/v1/orders") || below("/v1/tickets") || below("/v1/ops") {
        Class::Pay
    } else if below("/v1/holds") || path.ends_with("/holds") {
        Class::Hold
    } else if below("/v1/lobby") || below("/v1/sessions") || path.ends_with("/lobby") {
        Class::Join
    } else {
        Class::Browse
    }
}

/// Reads are what tells how slow everything has become; an answer that came too late is a sign of overload by itself.
fn learn(permit: Permit, status: StatusCode) {
    permit.record(match status {
        StatusCode::OK => Sample::Success,
        StatusCode::GATEWAY_TIMEOUT => Sample::Overload,
        _ => Sample::Ignore,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_nearer_to_a_ticket_is_more_urgent() {
        let show = "/v1/shows/shw_1";
        for (path, class) in [
            ("/v1/orders".to_owned(), Class::Pay),
            ("/v1/orders/ord_1/events".to_owned(), Class::Pay),
            ("/v1/tickets/tkt_1".to_owned(), Class::Pay),
            (format!("{show}/holds"), Class::Hold),
            ("/v1/holds/hld_1".to_owned(), Class::Hold),
            (format!("{show}/lobby"), Class::Join),
            ("/v1/lobby/lby_1/events".to_owned(), Class::Join),
            ("/v1/sessions".to_owned(), Class::Join),
            ("/v1/shows".to_owned(), Class::Browse),
            (show.to_owned(), Class::Browse),
            ("/v1/ordersx".to_owned(), Class::Browse),
            ("/docs".to_owned(), Class::Browse),
        ] {
            assert_eq!(of_path(&path), class, "{path}");
        }
    }
}
