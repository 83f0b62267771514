//! `dead-letters`: what could not be handled, and sending it again.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use stampede_bus::{Bus, DeadLetter, PublishError, ReplayError, Replayed};
use stampede_contracts::topology::CONSUMERS;

use crate::cli::Operated;
use crate::commands::kind::forward::Forward;
use crate::progress;

/// Letters read at once when all are to be sent again.
const BATCH: usize = 100;

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// Show them, the oldest first: when, who could not handle what, and why.
    List(List),
    /// Send the original again to where it came from, and take the letter away.
    ///
    /// The replay has the event's id and a new message id. A mail that was given up is tried again; what had its
    /// effect already has no other one, because consumers know an event by its id. Should this command be interrupted
    /// between sending and taking away, the letter stays, and sending it once more does no harm.
    ///
    /// A letter of a stream of facts (EVT_FACTS) goes back to that stream, where all its consumers see the event again
    /// and pass over it, except for the one that could not handle it. A letter of a state stream (EVT_CATALOG) is only
    /// taken away when a newer state was published since.
    ///
    /// Find out first why it died: what still cannot be handled is a dead letter again, with another number.
    Replay(Replay),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    operated: Operated,
    /// Only those of one consumer, for example notify
    #[arg(long, value_name = "NAME", value_parser = consumer)]
    consumer: Option<String>,
    /// How many, at most.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["sequences", "all"]))]
pub(crate) struct Replay {
    #[command(flatten)]
    operated: Operated,
    /// Their numbers, as `list` shows them
    #[arg(value_name = "SEQUENCE")]
    sequences: Vec<u64>,
    /// All there are now.
    #[arg(long)]
    all: bool,
    /// With --all: only those of one consumer, for example notify
    #[arg(long, value_name = "NAME", value_parser = consumer, conflicts_with = "sequences")]
    consumer: Option<String>,
}

impl DeadLetters {
    /// Does it. The exit code is 1 when a letter that was named could not be sent.
    ///
    /// # Errors
    /// When nothing runs, NATS does not answer, or a number is unknown; then nothing was sent.
    pub(crate) async fn run(self) -> Result<ExitCode> {
        match self {
            Self::List(list) => list.run().await,
            Self::Replay(replay) => replay.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<ExitCode> {
        let (bus, _forward) = connect(&self.operated).await?;
        let consumer = self.consumer.as_deref();
        // One more than is shown says whether there are more.
        let mut letters = bus.dead_letters(consumer, 0, self.limit.saturating_add(1)).await?;
        let more = letters.len() > self.limit;
        letters.truncate(self.limit);
        if letters.is_empty() && !more {
            progress::say(none(consumer));
            return Ok(ExitCode::SUCCESS);
        }
        progress::say(table(&letters));
        if more {
            progress::say(format_args!("There are more than {}; --limit shows them.", self.limit));
        }
        progress::say("Send them again: cargo stampede dead-letters replay <SEQUENCE>… | --all");
        Ok(ExitCode::SUCCESS)
    }
}

impl Replay {
    async fn run(self) -> Result<ExitCode> {
        let (bus, _forward) = connect(&self.operated).await?;
        let mut round = Round::default();
        if self.all {
            let consumer = self.consumer.as_deref();
            // Not further: what dies again in the meantime is looked at first.
            let newest = bus.newest_dead_letter().await?;
            let mut after = 0;
            loop {
                let letters = bus.dead_letters(consumer, after, BATCH).await?;
                let letters: Vec<_> = letters.into_iter().filter(|it| it.sequence <= newest).collect();
                let Some(last) = letters.last() else { break };
                after = last.sequence;
                round.replay(&bus, &letters).await?;
            }
            if round == Round::default() {
                progress::say(none(consumer));
            }
        } else {
            round.replay(&bus, &named(&bus, &self.sequences).await?).await?;
        }
        progress::say(format_args!("{} sent again", round.done));
        Ok(if round.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The letters with these numbers, or none of them: a slip is noticed before anything is sent.
async fn named(bus: &Bus, sequences: &[u64]) -> Result<Vec<DeadLetter>> {
    let (mut letters, mut unknown) = (Vec::new(), Vec::new());
    // One that was named twice is sent once.
    for sequence in sequences.iter().copied().collect::<BTreeSet<u64>>() {
        match bus.dead_letter_at(sequence).await? {
            Some(letter) => letters.push(letter),
            None => unknown.push(sequence.to_string()),
        }
    }
    ensure!(
        unknown.is_empty(),
        "there is no dead letter {}; nothing was sent. What there is: cargo stampede dead-letters list",
        unknown.join(", ")
    );
    Ok(letters)
}

/// What came of a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Round {
    done: u64,
    outdated: u64,
    failed: u64,
}

impl Round {
    /// Sends letters again. One that cannot be sent does not hold up the others; without JetStream it ends.
    async fn replay(&mut self, bus: &Bus, letters: &[DeadLetter]) -> Result<()> {
        for letter in letters {
            let what = format!("{} to {}", letter.sequence, visible(&letter.origin_subject));
            match bus.replay_dead_letter(letter).await {
                Ok(Replayed::Sent) => {
                    self.done += 1;
                    progress::say(format_args!("{what}: sent again"));
                }
                Ok(Replayed::Outdated) => {
                    self.outdated += 1;
                    progress::say(format_args!("{what}: taken away, a newer state was published since"));
                }
                Err(ReplayError::NotSent(error @ (PublishError::Unavailable | PublishError::TimedOut))) => {
                    bail!("{what}: {error}; {} were sent again before", self.done);
                }
                Err(error) => {
                    self.failed += 1;
                    progress::note(&format!("{what}: {error}"));
                }
            }
        }
        Ok(())
    }
}

async fn connect(operated: &Operated) -> Result<(Bus, Option<Forward>)> {
    operated.bus("dead-letters").await.context("dead letters are in NATS")
}

fn consumer(name: &str) -> Result<String> {
    if CONSUMERS.iter().any(|consumer| consumer.name == name) {
        return Ok(name.to_owned());
    }
    let names: Vec<&str> = CONSUMERS.iter().map(|consumer| consumer.name).collect();
    bail!("there is no such consumer; there are {}", names.join(", "))
}

fn none(consumer: Option<&str>) -> String {
    match consumer {
        None => "There are no dead letters.".to_owned(),
        Some(name) => format!("There are no dead letters of {name}."),
    }
}

fn table(letters: &[DeadLetter]) -> String {
    let head = ["SEQUENCE", "WHEN", "CONSUMER", "SUBJECT", "DELIVERIES", "REASON"].map(str::to_owned);
    let row = |letter: &DeadLetter| {
        let at = letter.at.to_string();
        let numbers = [letter.sequence, letter.deliveries].map(|number| number.to_string());
        let words = [&letter.consumer, &letter.origin_subject, &letter.reason].map(|text| visible(text));
        let ([sequence, deliveries], [consumer, subject, reason]) = (numbers, words);
        [sequence, at, consumer, subject, deliveries, reason]
    };
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(letters.iter().map(row)).collect();
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Whoever made the message chose these words: they must not steer the terminal, nor break the table.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_knows_no_consumer_of_this_name_says_which_there_are() {
        assert_eq!(consumer("notify").unwrap(), "notify");
        let said = consumer("notifies").unwrap_err().to_string();
        assert!(said.contains("orders-mails"), "{said}");
    }

    #[test]
    fn words_of_others_steer_no_terminal() {
        assert_eq!(visible("no\x1b[2J such\r\norder"), "no [2J such  order");
    }
}
