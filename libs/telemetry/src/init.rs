//! Installs tracer, meter and subscriber for the whole process.

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use prometheus::Registry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::{Metrics, Settings, logs};

/// How long [`Telemetry::flush`] blocks at most. The SDK's own bound, which cannot be set.
pub const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// What the process has installed; it can be done once.
static INSTALLED: OnceLock<Telemetry> = OnceLock::new();

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter has no meaning.
    #[error("the log filter is not valid: {0}")]
    LogFilter(#[from] tracing_subscriber::filter::ParseError),
    /// The sample ratio is no share.
    #[error("the sample ratio must lie between 0 and 1")]
    SampleRatio,
    /// The exporter could not be built, for example because the endpoint is no URL.
    #[error("the OTLP exporter could not be built: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The metrics registry refused the exporter.
    #[error("metrics could not be set up: {0}")]
    Metrics(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// Another subscriber was installed before.
    #[error("a tracing subscriber was installed before")]
    Subscriber(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// The running telemetry of this process. A handle: clones mean the same.
#[derive(Debug, Clone)]
pub struct Telemetry {
    tracer: SdkTracerProvider,
    metrics: Metrics,
}

impl Telemetry {
    /// What `init` installed in this process, if it was called.
    pub fn installed() -> Option<Self> {
        INSTALLED.get().cloned()
    }

    /// The metrics of this process.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Exports the spans that ended up to now.
    ///
    /// Blocks the thread for at most [`FLUSH_WITHIN`]. A failure is logged and not returned: a process that is about to
    /// end can do nothing about it.
    pub fn flush(self) {
        if let Err(error) = self.tracer.force_flush() {
            tracing::warn!(%error, "the last spans could not be exported");
        }
    }
}

/// Installs the global subscriber, tracer, meter, W3C propagator and a panic hook that logs.
///
/// The resource is made of the settings and of `OTEL_RESOURCE_ATTRIBUTES`, the SDK's own key.
///
/// # Errors
/// See [`Error`]; above all when it is called a second time in one process, see [`Telemetry::installed`].
pub fn init(settings: &Settings) -> Result<Telemetry, Error> {
    let resource = Resource::builder()
        .with_attributes([
            KeyValue::new("service.name", settings.service.clone()),
            KeyValue::new("service.version", settings.version.clone()),
            KeyValue::new("service.instance.id", settings.instance.clone()),
        ])
        .build();
    let tracer = tracer_provider(settings, resource.clone())?;
    let (meter, metrics) = meter_provider(resource)?;

    // Two filters, because they answer two questions: `log_filter` says what a person wants to read, and must not
    // take the ids away from the spans in which the lines are written.
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracer.tracer("stampede"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(LevelFilter::INFO);
    let lines = logs::layer(settings, std::io::stderr).with_filter(EnvFilter::try_new(&settings.log_filter)?);
    // Not `try_init`, which also takes over the crate `log` where a feature that another crate may ask for is there.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(spans).with(lines))?;

    opentelemetry::global::set_tracer_provider(tracer.clone());
    opentelemetry::global::set_meter_provider(meter);
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    std::panic::set_hook(Box::new(logs::log_panic));

    let telemetry = Telemetry { tracer, metrics };
    Ok(INSTALLED.get_or_init(|| telemetry).clone())
}

fn tracer_provider(settings: &Settings, resource: Resource) -> Result<SdkTracerProvider, Error> {
    if !(0.0..=1.0).contains(&settings.sample_ratio) {
        return Err(Error::SampleRatio);
    }
    // Where nobody collects spans there is no use in recording them. They have their ids all the same.
    let ratio = if settings.otlp_endpoint.is_some() { settings.sample_ratio } else { 0.0 };
    // The decision is made where a trace begins and kept by everybody behind: half a trace explains nothing.
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
    let mut builder = SdkTracerProvider::builder().with_sampler(sampler).with_resource(resource);
    if let Some(endpoint) = &settings.otlp_endpoint {
        // The SDK adds the path only to an endpoint that it found in the environment by itself.
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        builder =
            builder.with_batch_exporter(SpanExporter::builder().with_http().with_endpoint(url).build()?);
    }
    Ok(builder.build())
}

fn meter_provider(resource: Resource) -> Result<(SdkMeterProvider, Metrics), Error> {
    let registry = Registry::new();
    // Everything here comes from one meter, so a label that names it would only cost memory.
    let reader = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()?;
    let provider = SdkMeterProvider::builder().with_reader(reader).with_resource(resource).build();
    Ok((provider, Metrics::new(registry)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::thread::JoinHandle;

    use opentelemetry::trace::{Span, Tracer};

    use super::*;

    /// A collector that takes one request and gives back its head.
    fn collector() -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let request = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            let mut chunk = [0; 4096];
            while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
                let read = stream.read(&mut chunk).unwrap();
                assert!(read > 0, "the exporter went away");
                bytes.extend_from_slice(&chunk[..read]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            String::from_utf8_lossy(&bytes).to_ascii_lowercase()
        });
        (address, request)
    }

    #[test]
    fn an_ended_span_reaches_the_collector_at_the_latest_with_the_flush() {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let (address, request) = collector();
        let mut settings = Settings::new("orders", "1", "orders-1");
        settings.otlp_endpoint = Some(format!("http://{address}/"));
        let tracer = tracer_provider(&settings, Resource::builder_empty().build()).unwrap();
        tracer.tracer("test").start("work").end();

        let (_, metrics) = meter_provider(Resource::builder_empty().build()).unwrap();
        Telemetry { tracer, metrics }.flush();
        let head = request.join().unwrap();
        assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    }

    #[test]
    fn a_ratio_that_is_no_share_is_refused() {
        let mut settings = Settings::new("orders", "1", "orders-1");
        for wrong in [-0.1, 1.1, f64::NAN] {
            settings.sample_ratio = wrong;
            let refused = tracer_provider(&settings, Resource::builder_empty().build());
            assert!(matches!(refused, Err(Error::SampleRatio)), "{wrong}");
        }
    }

    #[test]
    fn a_span_that_nobody_collects_is_not_recorded_and_has_ids_too() {
        let settings = Settings::new("orders", "1", "orders-1");
        let tracer = tracer_provider(&settings, Resource::builder_empty().build()).unwrap();
        let span = tracer.tracer("test").start("work");
        assert!(span.span_context().is_valid());
        assert!(!span.span_context().is_sampled());
    }
}
