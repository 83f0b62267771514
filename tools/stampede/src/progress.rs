//! What a person sees while something takes time: one line a step, with the time it took.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Column where the times end.
const WIDTH: usize = 78;
/// Column where the details begin.
const DETAIL: usize = 13;

/// Why standard output no longer takes anything.
static OUTPUT_FAILED: OnceLock<io::Error> = OnceLock::new();

/// Prints a line on standard output. A closed pipe or a full disk does not stop the command half-way, which could leave a
/// hold or a process behind: nothing more is printed, and [`finish`] returns the error.
pub(crate) fn say(text: impl Display) {
    print(format_args!("{text}\n"));
}

/// The same without the end of a line.
pub(crate) fn print(text: impl Display) {
    if OUTPUT_FAILED.get().is_none()
        && let Err(error) = write!(io::stdout(), "{text}").and_then(|()| io::stdout().flush())
    {
        let _ = OUTPUT_FAILED.set(error);
    }
}

/// Whether everything was printed. A reader that closed its pipe (`| head`) has what it wanted.
///
/// # Errors
/// What kept standard output from being written, a full disk for example.
pub(crate) fn finish() -> anyhow::Result<()> {
    match OUTPUT_FAILED.get() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => {
            anyhow::bail!("standard output could not be written: {error}")
        }
        _ => Ok(()),
    }
}

/// Something happened in between.
pub(crate) fn note(text: &str) {
    say(format_args!("  ! {}", text.trim_end()));
}

/// A step that is done, with a detail and the time since `began`.
pub(crate) fn done(step: &str, detail: impl Display, began: Instant) {
    say(line(step, &detail.to_string(), began.elapsed()));
}

fn line(step: &str, detail: &str, took: Duration) -> String {
    let text = format!("  {step:<DETAIL$} {detail}");
    let time = format!("{:.2} s", took.as_secs_f64());
    let gap = WIDTH.saturating_sub(text.chars().count() + time.len()).max(2);
    format!("{text}{}{time}", " ".repeat(gap))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_end_in_one_column_unless_the_detail_is_long() {
        let short = line("nats", "2.15.1", Duration::from_millis(1234));
        assert_eq!(short.len(), WIDTH);
        assert!(short.starts_with("  nats          2.15.1") && short.ends_with("  1.23 s"), "{short}");
        let long = line("nats", &"x".repeat(100), Duration::from_secs(1));
        assert!(long.ends_with("x  1.00 s"), "{long}");
    }
}
