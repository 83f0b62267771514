//! The admin listener: probes, metrics and version, apart from the public door.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use serde::Serialize;
use stampede_telemetry::Metrics;
use tower::ServiceExt;

use crate::{Readiness, destinations};

/// How many connections it serves at once: a few probes and scrapers.
pub(crate) const CONNECTIONS_MAX: usize = 32;

/// What it shows.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Metrics,
    pub(crate) version: Version,
    /// What a service shows beside, set once it has been built.
    pub(crate) more: Arc<OnceLock<Router>>,
}

/// Which process this is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Version {
    pub(crate) service: &'static str,
    pub(crate) version: &'static str,
    pub(crate) instance: String,
}

pub(crate) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/destinations", get(destinations::show))
        .fallback(more)
        .with_state(admin)
}

/// Alive means: can still answer. Nothing else is looked at, because a restart heals nothing that lies outside.
async fn livez() -> &'static str {
    "alive\n"
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let report = admin.readiness.report().await;
    (status(report.ready), axum::Json(report)).into_response()
}

async fn startupz(State(admin): State<Admin>) -> Response {
    let started = admin.readiness.is_started();
    (status(started), if started { "started\n" } else { "starting\n" }).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "metrics could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn version(State(admin): State<Admin>) -> axum::Json<Version> {
    axum::Json(admin.version)
}

async fn more(State(admin): State<Admin>, request: Request) -> Response {
    match admin.more.get() {
        Some(router) => router.clone().oneshot(request).await.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn status(fine: bool) -> StatusCode {
    if fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
