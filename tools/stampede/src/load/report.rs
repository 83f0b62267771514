//! Counts by outcome and latencies by step, and the table of them.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;

/// How a journey ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Has valid tickets.
    Bought,
    /// Bought, and cancelled.
    Cancelled,
    /// Told that nothing is left.
    SoldOut,
    /// Left the lobby or the shop.
    GaveUp,
    /// Held seats and let them go.
    ChangedMind,
    /// The card was declined.
    Declined,
    /// The order failed and nothing was charged, or the hold was gone.
    OrderFailed,
    /// Told to come later: 429 or 503.
    Refused,
    /// An answer that should not be: another 5xx, or a 4xx that the buyer did nothing for.
    Wrong,
    /// No answer, however often it was asked.
    Silence,
    /// Whatever was asked for was still undecided when patience ended: a pending order, or 504 every time.
    Unsettled,
}

impl Outcome {
    /// Every outcome, the good ones first.
    pub const ALL: [Self; 11] = [
        Self::Bought,
        Self::Cancelled,
        Self::SoldOut,
        Self::GaveUp,
        Self::ChangedMind,
        Self::Declined,
        Self::OrderFailed,
        Self::Refused,
        Self::Wrong,
        Self::Silence,
        Self::Unsettled,
    ];

    /// Its name in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bought => "bought",
            Self::Cancelled => "bought, then cancelled",
            Self::SoldOut => "sold out",
            Self::GaveUp => "gave up",
            Self::ChangedMind => "changed their mind",
            Self::Declined => "card declined",
            Self::OrderFailed => "order failed",
            Self::Refused => "refused (429, 503)",
            Self::Wrong => "wrong answer",
            Self::Silence => "no answer",
            Self::Unsettled => "still pending",
        }
    }
}

/// What has happened so far.
#[derive(Debug, Default)]
pub struct Report {
    arrived: AtomicU64,
    turned_away: AtomicU64,
    confirmed: AtomicU64,
    repeated: AtomicU64,
    details: Mutex<Details>,
}

#[derive(Debug, Default)]
struct Details {
    outcomes: BTreeMap<Outcome, u64>,
    notes: BTreeMap<String, u64>,
    // Microseconds, to three digits.
    steps: BTreeMap<&'static str, Histogram<u64>>,
}

impl Report {
    fn details(&self) -> std::sync::MutexGuard<'_, Details> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn arrived(&self) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn confirmed(&self) {
        self.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that broke off is sent again.
    pub(super) fn repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests were sent again because the one before broke off.
    pub fn sent_again(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    pub(super) fn took(&self, step: &'static str, took: Duration) {
        let mut details = self.details();
        let histogram = match details.steps.entry(step) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                match Histogram::new_with_bounds(1, 600_000_000, 3) {
                    Ok(histogram) => entry.insert(histogram),
                    Err(_) => return,
                }
            }
        };
        histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn ended(&self, outcome: Outcome) {
        *self.details().outcomes.entry(outcome).or_default() += 1;
    }

    /// Something worth a line: which wrong answer, which refusal.
    pub(super) fn note(&self, note: String) {
        let mut details = self.details();
        // Bounded: a run does not invent more kinds of answers than there are codes.
        if details.notes.len() < 200 || details.notes.contains_key(&note) {
            *details.notes.entry(note).or_default() += 1;
        }
    }

    /// One line for people who wait.
    pub fn line(&self, elapsed: Duration) -> String {
        let arrived = self.arrived.load(Ordering::Relaxed);
        let confirmed = self.confirmed.load(Ordering::Relaxed);
        let details = self.details();
        let ended: u64 = details.outcomes.values().sum();
        let bad: u64 = [Outcome::Wrong, Outcome::Silence]
            .iter()
            .filter_map(|outcome| details.outcomes.get(outcome))
            .sum();
        let seconds = elapsed.as_secs_f64().max(0.001);
        format!(
            "{seconds:>5.0} s  arrived {arrived:>7}  on their way {:>6}  bought {confirmed:>7} ({:>6.1}/s)  wrong or silent {bad}",
            arrived - ended.min(arrived),
            confirmed as f64 / seconds,
        )
    }

    pub(super) fn summary(self, elapsed: Duration, history: PathBuf) -> Summary {
        let details = self.details.into_inner().unwrap_or_else(PoisonError::into_inner);
        let steps = details.steps.iter().map(|(name, histogram)| Latency::of(name, histogram)).collect();
        Summary {
            seconds: elapsed.as_secs_f64(),
            arrived: self.arrived.into_inner(),
            turned_away: self.turned_away.into_inner(),
            confirmed: self.confirmed.into_inner(),
            repeated: self.repeated.into_inner(),
            outcomes: details.outcomes,
            notes: details.notes,
            steps,
            history,
        }
    }
}

/// Latencies of one step in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// The step.
    pub step: String,
    /// How often.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// The worst.
    pub max: f64,
}

impl Latency {
    fn of(step: &str, histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            step: step.to_owned(),
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1_000.0,
        }
    }
}

/// What happened in a run.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// How long it took until the last buyer had an end.
    pub seconds: f64,
    /// Buyers who started.
    pub arrived: u64,
    /// Buyers for whom there was no place on this side.
    pub turned_away: u64,
    /// Orders that were confirmed.
    pub confirmed: u64,
    /// Requests that were sent again because the one before broke off without an answer.
    pub repeated: u64,
    /// Buyers by outcome.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Refusals and wrong answers by step, status and code.
    pub notes: BTreeMap<String, u64>,
    /// Latencies by step; `journey` is the whole way of those who bought, from the moment they were due.
    pub steps: Vec<Latency>,
    /// The file with everything buyers were told.
    pub history: PathBuf,
}

impl Summary {
    /// Buyers with this outcome.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(&outcome).copied().unwrap_or_default()
    }

    /// Whether the platform may have been disturbed as it was: refusals and delays are in order, wrong answers never.
    ///
    /// # Errors
    /// When a buyer got one.
    pub fn check(&self) -> Result<()> {
        let (wrong, history) = (self.count(Outcome::Wrong), self.history.display());
        ensure!(wrong == 0, "{wrong} buyers got a wrong answer; {history} has all that they got");
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} buyers in {:.1} s, {} orders confirmed: {:.1} a second",
            self.arrived,
            self.seconds,
            self.confirmed,
            self.confirmed as f64 / self.seconds.max(0.001)
        )?;
        if self.turned_away > 0 {
            writeln!(
                f,
                "{} more found no place on this side (--in-flight-max): the load was lower than asked for",
                self.turned_away
            )?;
        }
        if self.repeated > 0 {
            writeln!(f, "{} requests were sent again because the one before broke off", self.repeated)?;
        }
        writeln!(f)?;
        for outcome in Outcome::ALL {
            let count = self.count(outcome);
            if count > 0 {
                let share = count as f64 * 100.0 / self.arrived.max(1) as f64;
                writeln!(f, "  {:<24}{count:>9} {share:>6.1} %", outcome.as_str())?;
            }
        }
        if !self.notes.is_empty() {
            writeln!(f, "\n  what was said on the way")?;
            for (note, count) in &self.notes {
                writeln!(f, "  {note:<48}{count:>9}")?;
            }
        }
        writeln!(
            f,
            "\n  {:<12}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}   ms",
            "step", "count", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for step in &self.steps {
            writeln!(
                f,
                "  {:<12}{:>9}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>10.1}",
                step.step, step.count, step.p50, step.p90, step.p99, step.p999, step.max
            )?;
        }
        write!(f, "\nhistory: {}", self.history.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_answer_is_an_error_and_a_refusal_is_none() {
        let check = |outcomes: &[Outcome]| {
            let report = Report::default();
            outcomes.iter().for_each(|&outcome| report.ended(outcome));
            report.summary(Duration::ZERO, "history.jsonl".into()).check().map_err(|error| error.to_string())
        };
        let all_but_wrong: Vec<_> = Outcome::ALL.into_iter().filter(|&one| one != Outcome::Wrong).collect();
        assert_eq!(check(&all_but_wrong), Ok(()));
        let refused = check(&[Outcome::Bought, Outcome::Wrong]).unwrap_err();
        assert_eq!(refused, "1 buyers got a wrong answer; history.jsonl has all that they got");
    }
}
