//! The server side of HTTP: a span and a duration for every request.
//!
//! Attributes and metric follow OpenTelemetry's semantic conventions for HTTP (stable since 1.23). Routes come from
//! axum's `MatchedPath`, so the layer belongs on the router (`Router::layer`), outermost.

mod future;
mod instruments;
mod layer;
mod service;

pub use future::ResponseFuture;
pub use layer::{ServerLayer, Trust};
pub use service::Server;

/// A layer for a server that believes what `trust` says.
pub fn server_layer(trust: Trust) -> ServerLayer {
    ServerLayer::new(trust)
}
