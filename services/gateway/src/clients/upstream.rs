//! The services that speak HTTP: catalog, lobby, orders. Requests and answers pass through byte for byte.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use stampede_bus::Members;
use stampede_contracts::{Code, Problem, header as names};
use stampede_telemetry::trace;
use tracing::{Instrument, Span, field};

use crate::metrics::Metrics;

/// How many replicas one request is shown to.
const ATTEMPTS_MAX: usize = 3;
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

/// A request on its way in. Its header holds only what may pass.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// As the client sent it.
    pub method: Method,
    /// As the client sent it.
    pub target: PathAndQuery,
    /// What may pass, and what the door adds.
    pub headers: HeaderMap,
    /// As the client sent it.
    pub body: Bytes,
}

/// How an answer is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// When it is complete.
    Whole,
    /// As it comes, if it is a success; it may never end.
    Stream,
}

/// Why a replica gave no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// It took no connection, and so has seen nothing.
    #[error("no connection")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    /// The connection ended before the answer did; nobody knows what it did.
    #[error("the connection broke")]
    Broken(#[source] BoxError),
    /// The request cannot be written down: a fault of ours.
    #[error("not a request")]
    Unsendable(#[from] http::Error),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Passes requests on to the replicas that live.
#[derive(Clone)]
pub struct Upstream {
    client: Client<HttpConnector, Full<Bytes>>,
    members: Members,
    metrics: Metrics,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

impl Upstream {
    /// Finds replicas by their heartbeats.
    pub fn new(members: Members, metrics: Metrics) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_REPLICA)
            .build(connector);
        Self { client, members, metrics }
    }

    /// Whether anybody of `service` takes work.
    pub fn has_member(&self, service: &str) -> bool {
        self.members.all(service).iter().any(|member| member.ready)
    }

    /// Passes a request on, and to another replica when one cannot be reached or breaks off: every call that passes
    /// here is safe, idempotent or keyed, so asking again is allowed. Waits as long as it is polled; the deadline is
    /// the caller's.
    ///
    /// # Errors
    /// `unavailable` when no replica took the request, `deadline_exceeded` when one took it and nobody knows more.
    pub async fn pass(
        &self,
        service: &'static str,
        request: &Outgoing,
        delivery: Delivery,
    ) -> Result<Response, Problem> {
        let mut tried = Vec::new();
        let mut last = None;
        while let Some(base) = self.untried(service, &tried) {
            let failure = match self.attempt(service, &base, request, delivery).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            tracing::warn!(
                service,
                base,
                error = &failure as &dyn std::error::Error,
                "a replica gave no answer"
            );
            if matches!(failure, Failure::Unsendable(_)) {
                return Err(Problem::new(Code::Internal));
            }
            last = Some(failure);
            tried.push(base);
        }
        Err(unanswered(service, &request.method, last.as_ref()))
    }

    fn untried(&self, service: &str, tried: &[String]) -> Option<String> {
        if tried.len() >= ATTEMPTS_MAX {
            return None;
        }
        let members = self.members.all(service).len();
        (0..members).filter_map(|_| self.members.pick(service)).find(|base| !tried.contains(base))
    }

    async fn attempt(
        &self,
        service: &'static str,
        base: &str,
        request: &Outgoing,
        delivery: Delivery,
    ) -> Result<Response, Failure> {
        let span = tracing::info_span!(
            "upstream",
            otel.name = format!("{} {service}", request.method),
            otel.kind = "client",
            otel.status_code = field::Empty,
            http.request.method = request.method.as_str(),
            http.response.status_code = field::Empty,
            server.address = base,
            error.r#type = field::Empty,
        );
        let mut counted = self.metrics.attempt(service);
        let result = self.exchange(base, request, delivery).instrument(span.clone()).await;
        counted.outcome(outcome(&result, &span));
        result
    }

    async fn exchange(
        &self,
        base: &str,
        request: &Outgoing,
        delivery: Delivery,
    ) -> Result<Response, Failure> {
        let response = self.client.request(outbound(base, request)?).await.map_err(|error| {
            if error.is_connect() { Failure::Unreachable(error) } else { Failure::Broken(error.into()) }
        })?;
        if delivery == Delivery::Stream && response.status().is_success() {
            let (parts, body) = response.into_parts();
            return Ok(answer(parts.status, &parts.headers, Body::new(body)));
        }
        complete(response).await
    }
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

async fn complete(response: Response<Incoming>) -> Result<Response, Failure> {
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
    Ok(answer(parts.status, &parts.headers, Body::from(bytes)))
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

fn unanswered(service: &'static str, method: &Method, last: Option<&Failure>) -> Problem {
    match last {
        Some(Failure::Broken(_)) if !method.is_safe() => Problem::new(Code::DeadlineExceeded)
            .detail("The answer was lost on its way; the same request, with the same key if it has one, brings it back."),
        _ => Problem::new(Code::Unavailable).detail(format!("{service} is away")),
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
        Err(Failure::Unreachable(_)) => "unreachable",
        Err(Failure::Broken(_)) => "broken",
        Err(Failure::Unsendable(_)) => "unsendable",
    };
    if !matches!(outcome, "ok" | "refused") {
        span.record("error.type", outcome);
        span.record("otel.status_code", "ERROR");
    }
    outcome
}
