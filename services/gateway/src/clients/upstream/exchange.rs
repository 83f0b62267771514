//! One request and its answer, over HTTP with one replica.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use stampede_contracts::{Code, Problem, header as names};
use stampede_telemetry::trace;

use super::{Delivery, Outgoing};

/// Replicas are near: one that does not take a connection by then is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Shorter than the services' own, so that a request seldom meets a connection that is just being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE_PER_REPLICA: usize = 128;
/// The largest answer that is held in memory, in bytes.
const ANSWER_MAX: usize = 8 * 1024 * 1024;

/// The fields of an answer that a client gets to see; all others, the hop-by-hop ones of RFC 9110 7.6.1 among them,
/// end here.
const ANSWER_FIELDS: [HeaderName; 10] = [
    header::CONTENT_TYPE,
    header::CONTENT_LANGUAGE,
    header::LOCATION,
    header::RETRY_AFTER,
    header::CACHE_CONTROL,
    header::ETAG,
    header::LAST_MODIFIED,
    header::VARY,
    header::AGE,
    header::WWW_AUTHENTICATE,
];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody takes work.
    #[error("no replica takes work")]
    Nobody,
    /// It took no connection, and so has seen nothing.
    #[error("no connection")]
    Unreachable(#[source] legacy::Error),
    /// The connection ended before the answer did; nobody knows what it did.
    #[error("the connection broke")]
    Broken(#[source] BoxError),
    /// It had all the time that the function may take.
    #[error("no answer in time")]
    TimedOut,
    /// It had less time than the function may take, because the caller had no more.
    #[error("the caller's time is over")]
    OutOfTime,
    /// The request cannot be written down: a fault of ours.
    #[error("not a request")]
    Unsendable(#[from] http::Error),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Failure {
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Unreachable(_) => "unreachable",
            Self::Broken(_) => "broken",
            Self::TimedOut => "timed_out",
            Self::OutOfTime => "out_of_time",
            Self::Unsendable(_) => "unsendable",
        }
    }
}

/// Connections to all replicas.
pub(super) type Client = legacy::Client<HttpConnector, Full<Bytes>>;

pub(super) fn client() -> Client {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_REPLICA)
        .build(connector)
}

/// Asks the replica at `base`.
pub(super) async fn exchange(
    client: &Client,
    base: &str,
    request: &Outgoing,
    delivery: Delivery,
) -> Result<Response, Failure> {
    let response = client.request(outbound(base, request)?).await.map_err(|error| {
        if error.is_connect() { Failure::Unreachable(error) } else { Failure::Broken(error.into()) }
    })?;
    if delivery == Delivery::Stream && response.status().is_success() {
        let (parts, body) = response.into_parts();
        return Ok(answer(parts.status, &parts.headers, Body::new(body)));
    }
    complete(response, &request.method).await
}

fn outbound(base: &str, request: &Outgoing) -> Result<Request<Full<Bytes>>, http::Error> {
    let uri: Uri = format!("{base}{}", request.target).parse()?;
    let mut outbound = Request::new(Full::new(request.body.clone()));
    *outbound.method_mut() = request.method.clone();
    *outbound.uri_mut() = uri;
    *outbound.headers_mut() = request.headers.clone();
    let headers = outbound.headers_mut();
    if let Some(deadline) = stampede_deadline::current() {
        headers.insert(stampede_deadline::HEADER, deadline.header().into());
    }
    if let Some(traceparent) = trace::traceparent().and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(names::TRACEPARENT, traceparent);
    }
    Ok(outbound)
}

async fn complete(response: Response<Incoming>, method: &Method) -> Result<Response, Failure> {
    let (parts, body) = response.into_parts();
    let bytes = Limited::new(body, ANSWER_MAX).collect().await.map_err(Failure::Broken)?.to_bytes();
    if parts.status.is_client_error() || parts.status.is_server_error() {
        let is_problem =
            parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == Problem::MEDIA_TYPE);
        if !is_problem {
            tracing::error!(status = parts.status.as_u16(), "a service refused without a problem");
            return Ok(problem_of(parts.status).into_response());
        }
    }
    let mut answer = answer(parts.status, &parts.headers, Body::from(bytes));
    // Nothing came, but the length is that of what GET would bring (RFC 9110, 8.6).
    if let Some(length) = parts.headers.get(header::CONTENT_LENGTH).filter(|_| method == Method::HEAD) {
        answer.headers_mut().insert(header::CONTENT_LENGTH, length.clone());
    }
    Ok(answer)
}

fn answer(status: StatusCode, headers: &HeaderMap, body: Body) -> Response {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    for name in &ANSWER_FIELDS {
        for value in headers.get_all(name) {
            answer.headers_mut().append(name, value.clone());
        }
    }
    answer
}

/// The problem that says no more than the status does: nobody gets to see another shape, or a text from inside.
fn problem_of(status: StatusCode) -> Problem {
    Problem::new(match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::Forbidden,
        404 => Code::NotFound,
        405 => Code::MethodNotAllowed,
        408 => Code::RequestTimeout,
        409 => Code::Conflict,
        413 => Code::TooLarge,
        415 => Code::UnsupportedMediaType,
        422 => Code::ValidationFailed,
        429 => Code::RateLimited,
        400..500 => Code::MalformedRequest,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        _ => Code::Internal,
    })
}
