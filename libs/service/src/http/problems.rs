//! The answers that no handler gives.

use std::any::Any;

use axum::body::{Body, to_bytes};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Map, Value};
use stampede_contracts::{Code, Problem};
use stampede_deadline::Refusal;
use stampede_telemetry::trace;

/// No problem is larger, in bytes; what is larger is left as it is.
const PROBLEM_MAX: usize = 16 * 1024;

pub(super) async fn route_not_found() -> Problem {
    Problem::new(Code::RouteNotFound)
}

/// The router adds the `Allow` header, which is all that a response to `OPTIONS` needs.
pub(super) async fn method_not_allowed(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    Problem::new(Code::MethodNotAllowed).into_response()
}

pub(super) fn deadline_refused(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Malformed(malformed) => {
            Problem::new(Code::DeadlineMalformed).detail(malformed.to_string()).into_response()
        }
        Refusal::Expired => Problem::new(Code::DeadlineExceeded).into_response(),
    }
}

/// The panic itself was logged by the panic hook, with the same trace id; its message is not for strangers.
pub(super) fn panicked(_panic: Box<dyn Any + Send>) -> Response {
    Problem::new(Code::Internal).trace_id(trace::trace_id()).into_response()
}

/// Tells the caller the trace of the request, to quote it or to look it up.
pub(super) async fn with_traceparent(mut response: Response) -> Response {
    let traceparent = trace::traceparent().and_then(|text| HeaderValue::try_from(text).ok());
    if let Some(traceparent) = traceparent {
        response.headers_mut().insert(trace::HEADER, traceparent);
    }
    response
}

/// Gives every 5xx problem the id of its trace, which is all that a stranger can do something with: quote it.
pub(super) async fn with_trace_id(response: Response) -> Response {
    let is_problem =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == Problem::MEDIA_TYPE);
    if !response.status().is_server_error() || !is_problem {
        return response;
    }
    let (mut head, body) = response.into_parts();
    // The body is a few hundred bytes that lie in memory already; one that is larger or broken was not made by us.
    let Ok(bytes) = to_bytes(body, PROBLEM_MAX).await else {
        return Problem::new(Code::Internal).trace_id(trace::trace_id()).into_response();
    };
    // A problem that has an id came from a node behind this one: its bytes go through as they are. To HEAD there are none.
    let body = match (serde_json::from_slice::<Map<String, Value>>(&bytes), trace::trace_id()) {
        (Ok(mut problem), Some(trace_id)) if !problem.contains_key("trace_id") => {
            problem.insert("trace_id".to_owned(), trace_id.into());
            serde_json::to_vec(&problem).map_or_else(|_unwritable| Body::from(bytes), Body::from)
        }
        _ => Body::from(bytes),
    };
    // The length is known again only to the new body.
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    Response::from_parts(head, body)
}
