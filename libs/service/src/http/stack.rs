//! The layers around every router.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::middleware::map_response;
use stampede_deadline::{DeadlineLayer, InvalidLimits};
use stampede_telemetry::http::{Trust, server_layer};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use super::problems;

/// What a request may cost.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    trust: Trust,
    body_max_bytes: usize,
    deadline: DeadlineLayer<Body>,
}

impl HttpLimits {
    /// For a service that only our own nodes call: `traceparent` is believed, bodies have at most 64 KiB, and a
    /// request has 5 s if it does not say, 30 s at most.
    pub fn internal() -> Self {
        Self::with_trust(Trust::Internal)
    }

    /// For the public door: the same limits, but every request begins a new trace that links the client's.
    pub fn public() -> Self {
        Self::with_trust(Trust::Public)
    }

    #[expect(
        clippy::expect_used,
        reason = "the numbers are constants, and every test of the stack makes them"
    )]
    fn with_trust(trust: Trust) -> Self {
        Self {
            trust,
            body_max_bytes: 64 * 1024,
            deadline: deadline_layer(Duration::from_secs(5), Duration::from_secs(30))
                .expect("5 s is less than 30 s"),
        }
    }

    /// The largest body that extractors read, in bytes.
    #[must_use]
    pub fn body_max_bytes(mut self, bytes: usize) -> Self {
        self.body_max_bytes = bytes;
        self
    }

    /// The deadline of a request that names none, and the longest one it may name.
    ///
    /// # Errors
    /// [`InvalidLimits`] unless 1 ms ≤ `default` ≤ `max` ≤ 10 minutes.
    pub fn deadline(mut self, default: Duration, max: Duration) -> Result<Self, InvalidLimits> {
        self.deadline = deadline_layer(default, max)?;
        Ok(self)
    }

    /// The deadline of a request that names a shorter one. Call it after [`deadline`](Self::deadline).
    #[must_use]
    pub fn deadline_min(mut self, min: Duration) -> Self {
        self.deadline = self.deadline.at_least(min);
        self
    }
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self::internal()
    }
}

fn deadline_layer(default: Duration, max: Duration) -> Result<DeadlineLayer<Body>, InvalidLimits> {
    DeadlineLayer::try_new(default, max, problems::deadline_refused)
}

/// Puts the common layers around a complete router; its fallbacks become problems.
///
/// Call it last, with all routes and the state in place: a route that is added afterwards has no layers.
pub fn stack(router: Router, limits: HttpLimits) -> Router {
    let layers = ServiceBuilder::new()
        // Outermost, so that whatever happens below, a panic included, has a span and is counted.
        .layer(server_layer(limits.trust))
        // Around everything that can panic, and inside of the span, so that the answer can name the trace.
        .layer(CatchPanicLayer::custom(problems::panicked))
        // Inside of the span and outside of everything that answers, so that every answer names its trace.
        .layer(map_response(problems::with_traceparent))
        // Outside of whatever answers 5xx, the deadline too.
        .layer(map_response(problems::with_trace_id))
        // Before the body is read: a slow sender spends its own time.
        .layer(limits.deadline)
        // Only tells the extractors; they answer 413.
        .layer(DefaultBodyLimit::max(limits.body_max_bytes));
    router
        .fallback(problems::route_not_found)
        .method_not_allowed_fallback(problems::method_not_allowed)
        .layer(layers)
}
