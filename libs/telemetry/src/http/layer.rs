//! The layer: what all requests share.

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
/// The instruments are made here and not in `layer()`, which axum calls again and again.
#[derive(Debug, Clone)]
pub struct ServerLayer {
    trust: Trust,
    instruments: Instruments,
}

impl ServerLayer {
    /// Makes the layer, after [`init`](crate::init): the instruments of an earlier one record nothing.
    pub fn new(trust: Trust) -> Self {
        Self { trust, instruments: Instruments::new() }
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = Server<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Server::new(inner, self.trust, self.instruments.clone())
    }
}
