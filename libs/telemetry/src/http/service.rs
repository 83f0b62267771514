//! The service: makes the span of a request.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::extract::MatchedPath;
use http::{HeaderMap, Request, Response};
use tower::Service;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::instruments::{Instruments, known_method};
use super::{ResponseFuture, Trust};
use crate::trace;

/// How much of a path is written into a span, in bytes.
const PATH_MAX: usize = 256;

/// The service that [`ServerLayer`](super::ServerLayer) makes.
#[derive(Debug, Clone)]
pub struct Server<S> {
    inner: S,
    trust: Trust,
    instruments: Arc<OnceLock<Instruments>>,
}

impl<S> Server<S> {
    pub(super) fn new(inner: S, trust: Trust, instruments: Arc<OnceLock<Instruments>>) -> Self {
        Self { inner, trust, instruments }
    }

    fn relate(&self, span: &Span, headers: &HeaderMap) {
        let Some(traceparent) = headers.get(trace::HEADER).and_then(|value| value.to_str().ok()) else {
            return;
        };
        match self.trust {
            Trust::Internal => trace::set_parent(span, traceparent),
            Trust::Public => trace::add_link(span, traceparent),
        }
    }
}

impl<S, In, Out> Service<Request<In>> for Server<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let method = known_method(request.method());
        let route = request.extensions().get::<MatchedPath>().cloned();
        let span = server_span(method, route.as_ref(), request.uri().path());
        self.relate(&span, request.headers());
        let instruments = self.instruments.get_or_init(Instruments::new);
        let observation = instruments.start(method, route, span.clone());
        // The inner service may work before it returns its future, so the call belongs into the span too.
        let answer = span.in_scope(|| self.inner.call(request));
        ResponseFuture::new(answer.instrument(span), observation)
    }
}

fn server_span(method: &'static str, route: Option<&MatchedPath>, path: &str) -> Span {
    // An INFO span without a parent: whatever task serves the connection has no business in the request's trace.
    let span = tracing::info_span!(
        parent: None,
        "http.request",
        otel.name = Empty,
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = Empty,
        http.response.status_code = Empty,
        url.path = path.get(..PATH_MAX).unwrap_or(path),
        url.scheme = "http",
        error.type = Empty,
    );
    match route {
        Some(route) => {
            span.record("otel.name", format!("{method} {}", route.as_str()));
            span.record("http.route", route.as_str());
        }
        None => {
            span.record("otel.name", method);
        }
    }
    span
}
