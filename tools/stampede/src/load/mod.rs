//! A stampede of buyers: open loop, whole journeys, everything written down.
//!
//! Arrivals follow a Poisson process at the given rate and do not wait for answers, so that a slow system meets more
//! buyers at once instead of fewer requests; latencies count from the moment a buyer was due, not from the moment the
//! request happened to be sent (what is known as coordinated omission otherwise).

mod arrivals;
mod history;
mod journey;
mod report;
mod target;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use stampede_contracts::api::ShowSummary;
use stampede_retry::Backoff;
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

pub use history::{Entry, History, read as read_history};
pub use journey::Habits;
pub use report::{Outcome, Report, Summary};

use crate::client::Client;
use arrivals::Arrivals;
use journey::Journey;
use target::check_loopback;

/// Before the first repetition of a request that broke off, at most; the ceiling doubles from there.
const PAUSE_BASE: Duration = Duration::from_millis(100);
/// Before any repetition, at most.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The gateway.
    pub url: String,
    /// Buyers, at most.
    pub buyers: u64,
    /// Buyers a second.
    pub rate: f64,
    /// Slugs or ids of the shows; none: all of them.
    pub shows: Vec<String>,
    /// No buyer arrives after this.
    pub duration: Option<Duration>,
    /// Buyers on their way at once, at most; who comes on top is counted and turned away.
    pub in_flight_max: usize,
    /// What buyers do besides buying.
    pub habits: Habits,
    /// The same seed makes the same buyers.
    pub seed: u64,
    /// Lifts the limit of sessions an address.
    pub operator_token: Option<String>,
    /// Where buyers get tokens for their cards; without it, where the gateway says.
    pub tokens_url: Option<String>,
    /// Where everything is written down that buyers were told.
    pub history: PathBuf,
    /// How often a person said that the target need not be on this machine; 0, 1 or 2.
    pub allow_remote: u8,
}

/// Ends a run early, in two steps.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    arrivals: CancellationToken,
    journeys: CancellationToken,
}

impl Stop {
    /// Nobody arrives any more and who is on the way finishes; the second time, who is on the way stops, too.
    pub fn request(&self) {
        if self.arrivals.is_cancelled() {
            self.journeys.cancel();
        }
        self.arrivals.cancel();
    }
}

/// What every journey needs to know before it starts.
#[derive(Debug)]
struct Stage {
    client: Client,
    shows: Vec<ShowSummary>,
    tokens_url: String,
    habits: Habits,
    operator_token: Option<String>,
    backoff: Backoff,
    history: History,
    report: Report,
}

/// Runs the plan; `progress` is called about once a second.
///
/// # Errors
/// When a target is not on this machine, the platform cannot be reached, a show is unknown, or the history cannot be written.
/// What goes wrong for a single buyer is an outcome, not an error.
pub async fn run(plan: Plan, stop: &Stop, mut progress: impl FnMut(&Report, Duration)) -> Result<Summary> {
    ensure!(plan.rate.is_finite() && plan.rate > 0.0, "the rate must be above 0");
    check_loopback(&plan.url, plan.allow_remote)?;
    let client = Client::new(&plan.url)?;
    let shows = choose_shows(client.shows().await?, &plan.shows)?;
    let tokens_url = client.tokens_url(plan.tokens_url.as_deref()).await?;
    check_loopback(&tokens_url, plan.allow_remote)?;
    let (history, writer) = History::create(&plan.history).await?;
    let stage = Arc::new(Stage {
        tokens_url,
        client,
        shows,
        habits: plan.habits,
        operator_token: plan.operator_token.clone(),
        backoff: Backoff::try_new(PAUSE_BASE, PAUSE_MAX)?,
        history,
        report: Report::default(),
    });

    let started = Instant::now();
    let places = Arc::new(Semaphore::new(plan.in_flight_max));
    let mut journeys = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for (number, due) in (0..plan.buyers).zip(Arrivals::new(plan.rate, plan.seed)) {
        if plan.duration.is_some_and(|duration| due > duration) {
            break;
        }
        let due = started + due;
        loop {
            tokio::select! {
                () = stop.arrivals.cancelled() => break,
                () = tokio::time::sleep_until(due) => break,
                _ = ticks.tick() => progress(&stage.report, started.elapsed()),
            }
        }
        if stop.arrivals.is_cancelled() {
            break;
        }
        while journeys.try_join_next().is_some() {}
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let journey = Journey::new(Arc::clone(&stage), number, plan.seed, due);
                journeys.spawn(async move {
                    journey.run().await;
                    drop(place);
                });
            }
            Err(_) => stage.report.turned_away(),
        }
    }
    let mut aborted = false;
    loop {
        tokio::select! {
            ended = journeys.join_next() => if ended.is_none() { break },
            () = stop.journeys.cancelled(), if !aborted => {
                journeys.abort_all();
                aborted = true;
            }
            _ = ticks.tick() => progress(&stage.report, started.elapsed()),
        }
    }
    let stage = Arc::into_inner(stage).context("a journey is still on its way")?;
    drop(stage.history);
    writer.await.context("the history's writer broke")??;
    Ok(stage.report.summary(started.elapsed(), plan.history))
}

fn choose_shows(all: Vec<ShowSummary>, wanted: &[String]) -> Result<Vec<ShowSummary>> {
    ensure!(!all.is_empty(), "there is no show");
    if wanted.is_empty() {
        return Ok(all);
    }
    let named = |name: &String| {
        let found = all.iter().find(|show| show.slug == *name || show.show_id.to_string() == *name);
        let known = || all.iter().map(|show| show.slug.as_str()).collect::<Vec<_>>().join(", ");
        found.cloned().with_context(|| format!("there is no show {name}; there are: {}", known()))
    };
    wanted.iter().map(named).collect()
}
