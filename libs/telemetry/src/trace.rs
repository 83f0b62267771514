//! W3C trace context as plain strings: for headers, rows and messages.
//!
//! Level 1 of <https://www.w3.org/TR/trace-context/>, the `traceparent` only. What cannot be read is ignored, as the
//! recommendation asks: a broken header must not break a request.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The name of the header.
pub const HEADER: &str = "traceparent";

/// The current span in the form `00-<trace id>-<span id>-<flags>`; nothing outside of a span.
pub fn traceparent() -> Option<String> {
    current()
        .map(|span| format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8()))
}

/// The id of the current trace, 32 hexadecimal digits; nothing outside of a span.
pub fn trace_id() -> Option<String> {
    current().map(|span| span.trace_id().to_string())
}

/// Makes `span` a child of the span that `traceparent` names.
///
/// Only before the span is entered for the first time; afterwards its ids are fixed and this does nothing.
pub fn set_parent(span: &Span, traceparent: &str) {
    if let Some(parent) = parse(traceparent) {
        // It fails when no tracer is installed, the span is filtered out or has begun: then there is nothing to tie.
        let _untied = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// Says that `span` has to do with the span that `traceparent` names, without being its child.
pub fn add_link(span: &Span, traceparent: &str) {
    if let Some(other) = parse(traceparent) {
        span.add_link(other);
    }
}

/// The context of the innermost span that has ids.
///
/// It is OpenTelemetry's own current context and not that of `tracing::Span::current`, because a DEBUG span inside an
/// INFO span is current for tracing but has no ids.
pub(crate) fn current() -> Option<SpanContext> {
    Context::map_current(|context| {
        let span = context.span();
        let span_context = span.span_context();
        span_context.is_valid().then(|| span_context.clone())
    })
}

/// The SDK's own propagator also takes fields that are too short, so that two spellings would name one trace.
fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut fields = traceparent.split('-');
    let version = hex(fields.next()?, 2)?;
    let trace_id = TraceId::from_hex(hex(fields.next()?, 32)?).ok()?;
    let span_id = SpanId::from_hex(hex(fields.next()?, 16)?).ok()?;
    let flags = u8::from_str_radix(hex(fields.next()?, 2)?, 16).ok()?;
    // A later version may have more fields, version 00 may not, and ff is none.
    if version == "ff" || (version == "00" && fields.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    let context = SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

fn hex(field: &str, digits: usize) -> Option<&str> {
    let fits = field.len() == digits && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    fits.then_some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_recommendation_gives_as_an_example_is_read() {
        let parsed = parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!(parsed.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parsed.span_id().to_string(), "00f067aa0ba902b7");
        assert!(parsed.is_sampled());
        assert!(parsed.is_remote());
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        for wrong in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let parsed =
            parse("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-what-the-future-brings").unwrap();
        assert!(!parsed.is_sampled());
    }

    #[test]
    fn without_a_span_there_is_no_trace() {
        assert_eq!(traceparent(), None);
        assert_eq!(trace_id(), None);
    }
}
