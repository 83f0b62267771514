//! Log lines that know their trace.

mod json;
mod text;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::{LogFormat, Settings};

/// The layer that writes one line per event.
///
/// A span's fields are not formatted: they are in the trace, and a line needs only its ids to get there.
pub(crate) fn layer<S, W>(settings: &Settings, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .fmt_fields(debug_fn(|_, _, _| Ok(())))
        // It would report a closed standard output on standard error, and panic where that is closed, too.
        .log_internal_errors(false)
        .with_writer(writer);
    match settings.log_format.resolved() {
        LogFormat::Text => layer.event_format(text::Text).boxed(),
        LogFormat::Json | LogFormat::Auto => {
            layer.with_ansi(false).event_format(json::Json::new(settings)).boxed()
        }
    }
}

/// The panic hook: a panic is a log line with a trace id, like everything else that goes wrong. It has a backtrace if
/// `RUST_BACKTRACE` asks for one.
pub(crate) fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("a panic without a message");
    let location = panic.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(panic.location = location, panic.backtrace = backtrace, "panicked: {message}");
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    /// What is written while `work` runs.
    fn written(format: LogFormat, work: impl FnOnce()) -> String {
        let mut settings = Settings::new("orders", "1", "orders-1");
        settings.log_format = format;
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        let subscriber = tracing_subscriber::registry()
            .with(tracing_opentelemetry::layer().with_tracer(tracer))
            .with(layer(&settings, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_json_line_has_typed_fields_the_chain_of_errors_and_the_trace() {
        let mut trace_id = None;
        let line = written(LogFormat::Json, || {
            tracing::info_span!("outside").in_scope(|| {
                trace_id = crate::trace::trace_id();
                let error = Outer(io::Error::other("inner"));
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(error, attempt = 2, late = true, order = %"ord_1", "no \"luck\"");
            });
        });
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["message"], "no \"luck\"");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["service"], "orders");
        assert_eq!(line["instance"], "orders-1");
        assert_eq!(line["fields"]["attempt"], 2);
        assert_eq!(line["fields"]["late"], true);
        assert_eq!(line["fields"]["order"], "ord_1");
        assert_eq!(line["fields"]["error"], "outer: inner");
        assert_eq!(line["trace_id"].as_str(), trace_id.as_deref());
        assert!(trace_id.is_some());
        assert_eq!(line["span_id"].as_str().map(str::len), Some(16));
    }

    #[test]
    fn each_event_is_one_line_and_without_a_span_has_no_trace() {
        let lines = written(LogFormat::Json, || {
            tracing::info!("one\ntwo");
            tracing::info!("three");
        });
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["message"], "one\ntwo");
        assert_eq!(lines[0].get("trace_id"), None);
        assert_eq!(lines[0].get("fields"), None);
    }

    #[test]
    fn a_text_line_begins_with_the_message_and_ends_with_the_trace() {
        let mut trace_id = None;
        let line = written(LogFormat::Text, || {
            tracing::info_span!("outside").in_scope(|| {
                trace_id = crate::trace::trace_id();
                tracing::info!(quantity = 2, "taken");
            });
        });
        let line =
            line.replace("\x1b[2m", "").replace("\x1b[1m", "").replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert!(line.contains(" INFO "), "{line}");
        assert!(line.contains("taken quantity=2 trace="), "{line}");
        let shown = line.trim_end().rsplit('=').next().unwrap();
        assert!(trace_id.unwrap().starts_with(shown), "{line}");
    }
}
