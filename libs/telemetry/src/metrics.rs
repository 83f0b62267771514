//! The registry behind `/metrics`.

use opentelemetry::metrics::Meter;
use prometheus::{Registry, TextEncoder};

/// The meter of the whole process.
///
/// Instruments made before [`init`](crate::init) record nothing, ever: make them in constructors, or in statics that
/// are first touched after it.
pub fn meter() -> Meter {
    opentelemetry::global::meter("stampede")
}

/// All metrics of this process, ready to be rendered. A handle: clones show the same registry.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// The media type of what [`render`](Self::render) gives.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry }
    }

    /// Everything as it stands now, in Prometheus' text format 0.0.4.
    ///
    /// # Errors
    /// [`RenderError`] when a metric cannot be written in that format.
    pub fn render(&self) -> Result<String, RenderError> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}

/// The registry could not be rendered.
#[derive(Debug, thiserror::Error)]
#[error("metrics could not be rendered")]
pub struct RenderError(#[from] prometheus::Error);
