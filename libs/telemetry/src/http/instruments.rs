//! What is counted about requests.

use std::time::Instant;

use axum::extract::MatchedPath;
use http::{Method, StatusCode};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, UpDownCounter};
use tracing::Span;

use crate::meter;

/// The bounds that the semantic conventions recommend, in seconds.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The two instruments; clones record into the same.
#[derive(Debug, Clone)]
pub(super) struct Instruments {
    duration: Histogram<f64>,
    active: UpDownCounter<i64>,
}

impl Instruments {
    pub(super) fn new() -> Self {
        Self {
            duration: meter()
                .f64_histogram("http.server.request.duration")
                .with_description("Time from the head of a request to the head of its answer.")
                .with_unit("s")
                .with_boundaries(BOUNDS.to_vec())
                .build(),
            active: meter()
                .i64_up_down_counter("http.server.active_requests")
                .with_description("Requests that are being worked on.")
                .with_unit("{request}")
                .build(),
        }
    }

    /// Begins to count one request.
    pub(super) fn start(&self, method: &'static str, route: Option<MatchedPath>, span: Span) -> Observation {
        self.active.add(1, &[method_label(method)]);
        Observation { instruments: self.clone(), started: Instant::now(), method, route, span, outcome: None }
    }
}

/// One request that is being counted. It is written down when this is dropped, so a caller who went away and took
/// the handler with it is counted too.
#[derive(Debug)]
pub(super) struct Observation {
    instruments: Instruments,
    started: Instant,
    method: &'static str,
    route: Option<MatchedPath>,
    span: Span,
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Answered(StatusCode),
    Failed,
}

impl Observation {
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.outcome = Some(Outcome::Answered(status));
    }

    pub(super) fn failed(&mut self) {
        self.outcome = Some(Outcome::Failed);
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let mut labels = vec![method_label(self.method)];
        if let Some(route) = &self.route {
            labels.push(KeyValue::new("http.route", route.as_str().to_owned()));
        }
        let error = match self.outcome {
            Some(Outcome::Answered(status)) => {
                let code = i64::from(status.as_u16());
                labels.push(KeyValue::new("http.response.status_code", code));
                // Signed, because the bridge to OpenTelemetry would write an unsigned number as a text.
                self.span.record("http.response.status_code", code);
                // To the server a 4xx is the client's mistake and no error of the span.
                status.is_server_error().then(|| status.as_str().to_owned())
            }
            Some(Outcome::Failed) => Some("failed".to_owned()),
            None => Some("cancelled".to_owned()),
        };
        if let Some(error) = &error {
            self.span.record("otel.status_code", "ERROR");
            self.span.record("error.type", error);
            labels.push(KeyValue::new("error.type", error.clone()));
        }
        let elapsed = self.started.elapsed();
        self.instruments.duration.record(elapsed.as_secs_f64(), &labels);
        self.instruments.active.add(-1, &[method_label(self.method)]);
        if tracing::enabled!(tracing::Level::DEBUG) {
            let route = self.route.as_ref().map(MatchedPath::as_str);
            self.span.in_scope(
                || tracing::debug!(method = self.method, route, ?elapsed, outcome = ?self.outcome, "request"),
            );
        }
    }
}

fn method_label(method: &'static str) -> KeyValue {
    KeyValue::new("http.request.method", method)
}

/// The method as a label: a stranger may invent methods, and each would be a series of its own.
pub(super) fn known_method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_methods_share_one_label() {
        assert_eq!(known_method(&Method::PATCH), "PATCH");
        assert_eq!(known_method(&Method::from_bytes(b"BREW").unwrap()), "_OTHER");
    }
}
