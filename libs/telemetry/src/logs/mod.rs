//! Log lines that know their trace.

mod json;
mod text;

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
    let layer = tracing_subscriber::fmt::layer().fmt_fields(debug_fn(|_, _, _| Ok(()))).with_writer(writer);
    match settings.log_format.resolved() {
        LogFormat::Text => layer.event_format(text::Text).boxed(),
        LogFormat::Json | LogFormat::Auto => {
            layer.with_ansi(false).event_format(json::Json::new(settings)).boxed()
        }
    }
}

/// The panic hook: a panic is a log line with a trace id, like everything else that goes wrong.
pub(crate) fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("a panic without a message");
    let location = panic.location().map(ToString::to_string);
    tracing::error!(panic.location = location, panic.message = message, "panicked");
}
