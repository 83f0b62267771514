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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http::StatusCode;
    use opentelemetry::Value;
    use opentelemetry::trace::{SpanId, SpanKind, Status, TracerProvider};
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
    use tower::ServiceExt;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::http::server_layer;

    const CLIENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[derive(Debug, Clone, Default)]
    struct Exported(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Exported {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    /// The span of a request to `path`.
    async fn span_of(trust: Trust, path: &str) -> SpanData {
        let exported = Exported::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exported.clone()).build();
        let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let _subscriber = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans));

        let router = Router::new()
            .route("/orders/{id}", get(async || "an order"))
            .route("/broken", get(async || StatusCode::BAD_GATEWAY))
            .layer(server_layer(trust));
        let request = Request::get(path).header(trace::HEADER, CLIENT).body(Body::empty()).unwrap();
        drop(router.oneshot(request).await);
        let mut spans = exported.0.lock().unwrap().clone();
        assert_eq!(spans.len(), 1);
        spans.remove(0)
    }

    fn attribute(span: &SpanData, key: &str) -> Option<Value> {
        span.attributes
            .iter()
            .find(|attribute| attribute.key.as_str() == key)
            .map(|attribute| attribute.value.clone())
    }

    #[tokio::test]
    async fn a_span_is_named_after_its_route_and_says_what_the_conventions_ask() {
        let span = span_of(Trust::Internal, "/orders/7").await;
        assert_eq!(span.name, "GET /orders/{id}");
        assert_eq!(span.span_kind, SpanKind::Server);
        assert_eq!(span.status, Status::Unset);
        assert_eq!(attribute(&span, "http.route"), Some("/orders/{id}".into()));
        assert_eq!(attribute(&span, "url.path"), Some("/orders/7".into()));
        assert_eq!(attribute(&span, "http.response.status_code"), Some(200.into()));
        assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
        assert!(span.links.links.is_empty());
    }

    #[tokio::test]
    async fn only_a_5xx_is_an_error_of_the_span() {
        let broken = span_of(Trust::Internal, "/broken").await;
        assert!(matches!(broken.status, Status::Error { .. }));
        assert_eq!(attribute(&broken, "error.type"), Some("502".into()));

        let unknown = span_of(Trust::Internal, "/nowhere").await;
        assert_eq!(unknown.name, "GET");
        assert_eq!(unknown.status, Status::Unset);
        assert_eq!(attribute(&unknown, "http.route"), None);
    }

    #[tokio::test]
    async fn at_the_public_door_the_client_is_linked_and_no_parent() {
        let span = span_of(Trust::Public, "/orders/7").await;
        assert_eq!(span.parent_span_id, SpanId::INVALID);
        let links: Vec<_> = span.links.iter().map(|link| link.span_context.span_id().to_string()).collect();
        assert_eq!(links, ["00f067aa0ba902b7"]);
    }
}
