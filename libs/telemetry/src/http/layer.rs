//! The layer: what all requests share.

use std::sync::{Arc, OnceLock};

use tower::Layer;

use super::Server;
use super::instruments::Instruments;

/// What a `traceparent` header means to this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It comes from one of ours: the request's span is its child.
    Internal,
    /// It comes from a stranger: a new trace begins here and links to it, so that nobody outside decides what is
    /// sampled or mixes their requests into one trace.
    Public,
}

/// Gives every request a span and counts how long it took.
///
/// The instruments are shared by all services the layer makes, because axum calls `layer()` again and again. They are
/// made with the first request, so that a router may be put together before [`init`](crate::init).
#[derive(Debug, Clone)]
pub struct ServerLayer {
    trust: Trust,
    instruments: Arc<OnceLock<Instruments>>,
}

impl ServerLayer {
    /// A layer for a server that believes what `trust` says.
    pub fn new(trust: Trust) -> Self {
        Self { trust, instruments: Arc::default() }
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = Server<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Server::new(inner, self.trust, self.instruments.clone())
    }
}
