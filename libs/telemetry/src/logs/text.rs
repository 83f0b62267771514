//! One readable line: time of day (UTC), level, where, what, and the beginning of the trace id.

use std::error::Error;
use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use super::json::chain;
use crate::trace;

/// How much of a trace id is enough for a person to see which lines belong together.
const TRACE_ID_DIGITS: usize = 8;

/// Formats events for a terminal.
#[derive(Debug)]
pub(super) struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (dim, bold, plain) =
            if writer.has_ansi_escapes() { ("\x1b[2m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let level = *event.metadata().level();
        let colour = if writer.has_ansi_escapes() { colour(level) } else { "" };

        let mut fields = Fields::default();
        event.record(&mut fields);
        write!(writer, "{dim}{}{plain} {colour}{level:>5}{plain} ", time_of_day(SystemTime::now()))?;
        write!(
            writer,
            "{dim}{}{plain} {bold}{}{plain}{}",
            event.metadata().target(),
            fields.message,
            fields.rest
        )?;
        if let Some(span) = trace::current() {
            let id = span.trace_id().to_string();
            write!(writer, " {dim}trace={}{plain}", id.get(..TRACE_ID_DIGITS).unwrap_or(&id))?;
        }
        writeln!(writer)
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

fn time_of_day(now: SystemTime) -> String {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since_epoch.as_secs() % 86_400;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", since_epoch.subsec_millis())
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _written = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.rest, " {name}={value}"),
        };
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field, format_args!("{}", chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_time_of_day_is_counted_from_midnight() {
        let moment = UNIX_EPOCH + Duration::from_millis(86_400_000 * 3 + 3_723_045);
        assert_eq!(time_of_day(moment), "01:02:03.045");
    }
}
