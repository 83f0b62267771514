//! What a process notices about its connection.

use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::{Event, ServerError};
use tokio::sync::watch;

use crate::metrics::Metrics;

/// What the client library tells through its callback, and nowhere else.
pub(crate) struct Watched {
    pub(crate) violations: AtomicU64,
    /// Counts connections: a new one has lost the pulls of the one before.
    pub(crate) connections: watch::Sender<u64>,
    pub(crate) closed: watch::Sender<bool>,
    metrics: Metrics,
}

impl Watched {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            violations: AtomicU64::new(0),
            connections: watch::Sender::new(0),
            closed: watch::Sender::new(false),
            metrics,
        }
    }

    pub(crate) fn on(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.connections.send_modify(|connections| *connections += 1);
                tracing::info!("connected to NATS");
            }
            Event::Disconnected => {
                self.metrics.disconnects.add(1, &[]);
                tracing::warn!("lost the connection to NATS");
            }
            Event::Closed => {
                self.closed.send_replace(true);
            }
            Event::SlowConsumer(subscription) => {
                self.metrics.dropped.add(1, &[]);
                tracing::error!(subscription, "a subscription is full: messages are dropped");
            }
            Event::ServerError(error) if is_violation(error) => {
                self.violations.fetch_add(1, Ordering::Relaxed);
                self.metrics.violations.add(1, &[]);
                tracing::error!(%error, "NATS does not permit this");
            }
            Event::ServerError(error) => tracing::warn!(%error, "NATS reports an error"),
            Event::ClientError(error) => tracing::debug!(%error, "the NATS client reports an error"),
            Event::Draining | Event::LameDuckMode => tracing::info!(%event, "NATS"),
        }
    }
}

/// The server has no code for it, only the words `Permissions Violation for …`.
fn is_violation(error: &ServerError) -> bool {
    match error {
        ServerError::AuthorizationViolation => true,
        ServerError::Other(text) => text.to_ascii_lowercase().contains("permissions violation"),
        ServerError::SlowConsumer(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_says_in_words_what_it_does_not_permit() {
        assert!(is_violation(&ServerError::Other("Permissions Violation for Publish to \"x\"".into())));
        assert!(!is_violation(&ServerError::Other("Maximum Payload Violation".into())));
    }
}
