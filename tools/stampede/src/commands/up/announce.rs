//! The last thing `up` says before it falls silent: where to go now.

use std::fmt::Write as _;
use std::time::Duration;

use super::start::Ready;
use crate::cli;
use crate::run_file::Urls;
use crate::state::StateDir;

pub(super) fn text(
    urls: &Urls,
    state: &StateDir,
    ready: &Ready,
    options: &cli::Up,
    took: Duration,
) -> String {
    let mut text = format!("\nready after {:.1} s\n\n", took.as_secs_f64());
    let mut line = |what: &str, place: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {what:<14} {place}");
    };
    if !options.infra {
        line("public API", &urls.gateway);
        line("try it", &format!("{}/docs", urls.gateway));
        line("card tokens", &urls.tokens);
    }
    line("mails", &state.mail().join("new").display().to_string());
    line("logs", &state.logs().display().to_string());
    line("NATS", &urls.nats);
    line("Postgres", &urls.postgres);
    line("secrets", &state.secrets().display().to_string());
    if !options.infra {
        let _ = writeln!(text, "\nPaste one of these:\n");
        for curl in curls(urls, ready) {
            let _ = writeln!(text, "  {curl}");
        }
    }
    let stop = if options.detached { "cargo stampede down" } else { "Ctrl-C" };
    let _ = write!(text, "\n{stop} stops everything; cargo stampede status shows it.");
    text
}

/// Three lines that work as they stand.
fn curls(urls: &Urls, ready: &Ready) -> [String; 3] {
    let gateway = &urls.gateway;
    let show = ready
        .show
        .map_or_else(|| format!("{gateway}/v1/test-cards"), |id| format!("{gateway}/v1/shows/{id}"));
    [
        format!("curl -s {gateway}/v1/shows"),
        format!("curl -s {show}"),
        format!("curl -s -X POST {gateway}/v1/sessions"),
    ]
}
