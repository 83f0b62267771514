//! The server layer around a real router, with everything installed as in a process.

#![expect(clippy::unwrap_used, reason = "the helpers of a test end it as the test itself would")]

use std::sync::LazyLock;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::get;
use http::{Request, Response, StatusCode};
use stampede_telemetry::http::{Trust, server_layer};
use stampede_telemetry::{Error, Settings, Telemetry, init, trace};
use tower::ServiceExt;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const PARENT_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

static TELEMETRY: LazyLock<Telemetry> = LazyLock::new(|| {
    let mut settings = Settings::new("orders", "1.2.3", "orders-1");
    // Ids must not depend on what a person wants to read.
    "off".clone_into(&mut settings.log_filter);
    init(&settings).unwrap()
});

fn rendered() -> String {
    TELEMETRY.metrics().render().unwrap()
}

async fn traceparent() -> String {
    trace::traceparent().unwrap_or_default()
}

fn router(trust: Trust) -> Router {
    LazyLock::force(&TELEMETRY);
    Router::new()
        .route("/orders/{id}", get(traceparent))
        .route("/broken", get(async || StatusCode::BAD_GATEWAY))
        .route("/forever", get(std::future::pending::<()>))
        .layer(server_layer(trust))
}

fn request(path: &str) -> Request<Body> {
    Request::get(path).header(trace::HEADER, PARENT).body(Body::empty()).unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1024).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn one_of_ours_is_believed_and_a_stranger_gets_a_trace_of_his_own() {
    let inside = text(router(Trust::Internal).oneshot(request("/orders/1")).await.unwrap()).await;
    assert_eq!(inside.get(3..35), Some(PARENT_TRACE), "{inside}");
    assert_ne!(inside, PARENT, "the request has a span of its own");

    let outside = text(router(Trust::Public).oneshot(request("/orders/1")).await.unwrap()).await;
    assert_eq!(outside.len(), PARENT.len(), "{outside}");
    assert_ne!(outside.get(3..35), Some(PARENT_TRACE));
}

#[tokio::test]
async fn what_is_counted_is_the_template_of_the_route() {
    let router = router(Trust::Internal);
    for path in ["/orders/1", "/orders/2", "/broken", "/nowhere/1", "/nowhere/2"] {
        router.clone().oneshot(request(path)).await.unwrap();
    }
    let metrics = rendered();
    let counted = |labels: &str| {
        let line = metrics.lines().find(|line| {
            line.starts_with("http_server_request_duration_seconds_count") && line.contains(labels)
        });
        line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    assert!(counted(r#"http_route="/orders/{id}""#).is_some(), "{metrics}");
    assert!(counted(r#"error_type="502",http_request_method="GET",http_response_status_code="502",http_route="/broken""#).is_some(), "{metrics}");
    assert!(!metrics.contains("nowhere") && !metrics.contains("/orders/1"), "{metrics}");
    assert!(metrics.contains(r#"service_instance_id="orders-1""#), "{metrics}");
    assert!(metrics.contains("target_info{"), "{metrics}");
    assert!(!metrics.contains("otel_scope"), "{metrics}");
}

#[tokio::test]
async fn a_caller_who_goes_away_is_counted() {
    let mut answer = Box::pin(router(Trust::Internal).oneshot(request("/forever")));
    assert!(poll_once(&mut answer).await.is_none());
    assert!(rendered().contains(r#"http_server_active_requests{http_request_method="GET"} 1"#));
    drop(answer);
    let metrics = rendered();
    assert!(
        metrics.contains(r#"error_type="cancelled",http_request_method="GET",http_route="/forever""#),
        "{metrics}"
    );
}

/// Polls once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn the_second_init_of_a_process_is_refused() {
    LazyLock::force(&TELEMETRY);
    let second = init(&Settings::new("orders", "1", "orders-2"));
    assert!(matches!(second, Err(Error::Subscriber(_))));
    assert!(Telemetry::installed().is_some());
}

#[test]
fn work_that_goes_on_later_is_tied_by_a_string() {
    LazyLock::force(&TELEMETRY);
    let stored = tracing::info_span!("request").in_scope(trace::traceparent).unwrap();
    let later = tracing::info_span!("later");
    trace::set_parent(&later, &stored);
    let (trace_id, current) = later.in_scope(|| (trace::trace_id(), trace::traceparent()));
    assert_eq!(trace_id.as_deref(), stored.get(3..35));
    assert_ne!(current.as_deref(), Some(stored.as_str()));

    let linked = tracing::info_span!("linked");
    trace::add_link(&linked, &stored);
    assert_ne!(linked.in_scope(trace::trace_id).as_deref(), stored.get(3..35));
}

#[test]
fn a_debug_span_does_not_hide_the_ids_around_it() {
    LazyLock::force(&TELEMETRY);
    tracing::info_span!("request").in_scope(|| {
        let around = trace::traceparent();
        assert!(around.is_some());
        assert_eq!(tracing::debug_span!("detail").in_scope(trace::traceparent), around);
    });
}
