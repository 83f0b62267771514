//! `stampede chaos`: random faults under load, then the verifier.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use stampede_contracts::Timestamp;

use super::verify::Verify;
use crate::load::{self, Habits, Plan, Stop};
use crate::signals::Signals;
use crate::state::StateDir;
use crate::{chaos, progress};

/// A day: more is a mistyped number.
const MINUTES_MAX: f64 = 24.0 * 60.0;
/// Concurrent buyers.
const IN_FLIGHT_MAX: usize = 5_000;
/// Between two progress lines of the load.
const LINE_EVERY: Duration = Duration::from_secs(15);
/// The exit code by which a shell reports Ctrl-C.
const INTERRUPTED: u8 = 128 + 2;

/// Kill and freeze random processes of the running platform under load, then verify.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Chaos {
    /// Decides the faults and the buyers.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long faults are injected and buyers arrive.
    #[arg(long, default_value_t = 10.0)]
    pub minutes: f64,
    /// Buyers per second.
    #[arg(long, default_value_t = 20.0)]
    pub rate: f64,
}

impl Chaos {
    /// Runs against the platform of a state folder. The exit code is the verifier's: 1 when a rule is broken.
    ///
    /// # Errors
    /// When no platform runs there, it exits, a process does not get ready after the last fault, or a buyer gets a wrong
    /// answer.
    pub async fn run(self, state: &StateDir, gateway: String, operator: Option<String>) -> Result<ExitCode> {
        ensure!(
            self.minutes > 0.0 && self.minutes <= MINUTES_MAX,
            "--minutes must be above 0 and at most {MINUTES_MAX}"
        );
        let mut signals = Signals::listen()?;
        tokio::select! {
            done = self.faults_then_verify(state, gateway, operator) => done,
            () = signals.next() => {
                progress::say("interrupted; frozen processes are resumed");
                Ok(ExitCode::from(INTERRUPTED))
            }
        }
    }

    async fn faults_then_verify(
        &self,
        state: &StateDir,
        gateway: String,
        operator: Option<String>,
    ) -> Result<ExitCode> {
        let length = Duration::from_secs_f64(self.minutes * 60.0);
        let history = state.root().join(history(self.seed));
        let plan = Plan {
            url: gateway,
            buyers: u64::MAX,
            rate: self.rate,
            shows: Vec::new(),
            duration: Some(length),
            in_flight_max: IN_FLIGHT_MAX,
            habits: Habits::default(),
            seed: self.seed,
            operator_token: operator,
            tokens_url: None,
            history,
            allow_remote: 0,
        };
        let Self { seed, minutes, rate } = self;
        progress::say(format_args!("chaos: seed {seed}, {minutes} minutes, {rate} buyers per second"));
        let mut line_at = LINE_EVERY;
        let stop = Stop::default();
        let buyers = load::run(plan, &stop, move |report, elapsed| {
            if elapsed >= line_at {
                line_at = elapsed + LINE_EVERY;
                progress::say(report.line(elapsed));
            }
        });
        let (summary, ()) =
            tokio::try_join!(async { buyers.await.context("load") }, chaos::run(state, self.seed, length))?;
        progress::say(&summary);
        let code = Verify::default().run(state).await?;
        summary.check()?;
        Ok(code)
    }
}

/// What the buyers received, for the verifier; below the state folder.
fn history(seed: u64) -> PathBuf {
    format!("history/chaos-{seed}-{}.jsonl", Timestamp::now().to_string().replace(':', "-")).into()
}
