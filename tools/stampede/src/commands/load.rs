//! `stampede load`: a stampede of buyers.

use std::{io::IsTerminal, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::{ArgAction, Args};
use indicatif::{ProgressBar, ProgressStyle};
use stampede_contracts::Timestamp;

use crate::load::{self, Habits, Outcome, Plan, Stop};
use crate::secrets::current;
use crate::signals::Signals;
use crate::{http, progress};

/// Send a stampede of buyers: open loop, whole journeys.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Load {
    /// The gateway; without it, the one that `up` started.
    #[arg(long, value_parser = http::base_url)]
    pub url: Option<String>,
    /// Buyers in all, at most.
    #[arg(long, default_value_t = 1_000)]
    pub buyers: u64,
    /// Buyers a second; they do not wait for each other.
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// Slug or id of a show; may be given several times. Without it, all shows.
    #[arg(long)]
    pub show: Vec<String>,
    /// Seconds after which nobody arrives any more.
    #[arg(long)]
    pub duration: Option<u64>,
    /// Everybody buys at once and keeps it.
    #[arg(long)]
    pub only_buy: bool,
    /// The same seed makes the same buyers.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Buyers on their way at once, at most.
    #[arg(long, default_value_t = 20_000)]
    pub in_flight_max: usize,
    /// Operator's token: lifts the limit of sessions an address. Without it, the one of the running `up`.
    #[arg(long, env = "OPERATOR_TOKEN", hide_env_values = true, value_parser = current)]
    pub operator_token: Option<String>,
    /// Where card tokens are given out; without it, where the gateway says.
    #[arg(long, value_name = "URL", env = "TOKENS_URL", value_parser = http::base_url)]
    pub tokens_url: Option<String>,
    /// Where everything is written down that buyers were told.
    #[arg(long)]
    pub history: Option<PathBuf>,
    /// Also write the summary there, as JSON.
    #[arg(long)]
    pub summary: Option<PathBuf>,
    /// The gateway is not on this machine. Has to be said twice.
    #[arg(long, action = ArgAction::Count)]
    pub allow_remote: u8,
}

impl Load {
    /// Runs against `url`; the history goes below `state` unless told otherwise.
    ///
    /// # Errors
    /// When the target is refused or cannot be reached, or when an answer was wrong or missing.
    pub async fn run(self, url: &str, operator_token: Option<String>, state: &std::path::Path) -> Result<()> {
        let mut signals = Signals::listen()?;
        let name = format!("history/{}.jsonl", Timestamp::now().to_string().replace(':', "-"));
        let plan = Plan {
            url: url.to_owned(),
            buyers: self.buyers,
            rate: self.rate,
            shows: self.show,
            duration: self.duration.map(Duration::from_secs),
            in_flight_max: self.in_flight_max,
            habits: if self.only_buy { Habits::ONLY_BUY } else { Habits::default() },
            seed: self.seed,
            operator_token: self.operator_token.or(operator_token),
            tokens_url: self.tokens_url,
            history: self.history.unwrap_or_else(|| state.join(name)),
            allow_remote: self.allow_remote,
        };
        let bar = progress_bar(plan.buyers);
        let mut lines_after = 5;
        let stop = Stop::default();
        let running = load::run(plan, &stop, |report, elapsed| {
            bar.set_message(report.line(elapsed));
            bar.tick();
            // Without a terminal a line every five seconds shows that it is alive.
            if bar.is_hidden() && elapsed.as_secs() >= lines_after {
                lines_after = elapsed.as_secs() + 5;
                progress::say(report.line(elapsed));
            }
        });
        let mut running = std::pin::pin!(running);
        let mut interrupted = false;
        let summary = loop {
            tokio::select! {
                summary = &mut running => break summary?,
                () = signals.next() => {
                    interrupted = true;
                    stop.request();
                    bar.suspend(|| progress::note("no more buyers arrive; those in flight finish (again: stop now)"));
                }
            }
        };
        bar.finish_and_clear();
        progress::say(&summary);
        if let Some(path) = self.summary {
            let json = serde_json::to_string_pretty(&summary)?;
            std::fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let bad = summary.count(Outcome::Wrong) + summary.count(Outcome::Silence);
        ensure!(bad == 0, "{bad} buyers got a wrong answer or none");
        ensure!(!interrupted, "interrupted before all buyers had arrived");
        Ok(())
    }
}

fn progress_bar(buyers: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(buyers);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar
}
