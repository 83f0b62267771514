//! `bench purchases`: what the layers around all calls cost a purchase.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::kv::Store;
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};
use stampede_contracts::Timestamp;
use stampede_contracts::api::{NewSection, NewShow, NewVenue, Show};
use stampede_contracts::event::Seating;
use tokio::time::{Instant, sleep};

use crate::bench::pairs::{Estimate, Pair, Side, estimate, table};
use crate::blueprint::System;
use crate::cli::Place;
use crate::client::{Client, With};
use crate::commands::policies;
use crate::load::{self, Habits, Outcome, Plan, Stop};
use crate::run_file::{Entry, RunFile};
use crate::secrets::Secrets;
use crate::state::StateDir;
use crate::{http, progress, state};

/// Where the figures are kept.
const PAGE: &str = "docs/purchase-figures.md";
/// Nothing is measured at first: connections are opened, plans made, limits found.
const WARM_UP: Duration = Duration::from_secs(10);
/// How long all replicas may take to follow a policy.
const FOLLOW_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The kernel counts CPU time in hundredths of a second for everybody who reads it (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// Places of one section, and how many of them there are: enough for a day of buyers.
const SECTION: u32 = 20_000;
const SECTIONS: u32 = 5;

/// Options of `bench purchases`.
#[derive(Args, Debug)]
pub(crate) struct Purchases {
    #[command(flatten)]
    place: Place,
    /// Loads with the stack, and as many without.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(6..=100))]
    pairs: u32,
    /// Seconds of one load.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Buyers a second, the same in all loads.
    #[arg(long, default_value_t = 40.0)]
    rate: f64,
    /// Write the figures into docs/purchase-figures.md.
    #[arg(long)]
    write: bool,
}

/// The platform under load.
struct Stage {
    state: StateDir,
    run: RunFile,
    system: System,
    store: Store,
    show: String,
    operator_token: String,
    http: reqwest::Client,
}

impl Purchases {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let workspace = state::workspace().context("not inside a checkout of Stampede")?;
        let stage = Stage::open(&self.place, System::read(&workspace)?).await?;
        progress::say(format_args!(
            "{} pairs of {} s at {} buyers a second, after {} s to warm up",
            self.pairs,
            self.seconds,
            self.rate,
            WARM_UP.as_secs()
        ));
        stage.load(&self, WARM_UP, 0).await?;
        let pairs = self.measure(&stage).await;
        // Whatever happened, the platform is left as it was.
        stage.switch(None).await?;
        let pairs = pairs?;
        let Estimate { median, low, high } = estimate(&pairs).context("too few pairs")?;
        let verdict = format!(
            "median difference {median:+.2} %, between {low:+.2} and {high:+.2} % with at least 95 %; asked: below 3 %"
        );
        progress::say(format_args!("\n{}\n{verdict}", table(&pairs)));
        if self.write {
            let page = format!(
                "# What the layers around all calls cost a purchase\n\n\
                 Written by `cargo stampede bench purchases --write`; nothing here is typed in. The same open-loop load of {} \
                 buyers a second\nfor {} s, with the stack of every destination on and off in turn (`stack=off`, see \
                 `cargo stampede policies`), on one\nrunning platform. CPU time is user and system of our services alone.\n\n\
                 {}\n{verdict}.\n",
                self.rate,
                self.seconds,
                table(&pairs)
            );
            fs::write(workspace.join(PAGE), page).with_context(|| format!("{PAGE} cannot be written"))?;
            progress::say(format_args!("written to {PAGE}"));
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn measure(&self, stage: &Stage) -> Result<Vec<Pair>> {
        let mut pairs = Vec::new();
        for number in 0..self.pairs {
            // Whoever comes second finds a larger database and a warmer machine, so they take turns at it.
            let (on, off) = if number % 2 == 0 {
                let on = self.side(stage, "on", number).await?;
                (on, self.side(stage, "off", number).await?)
            } else {
                let off = self.side(stage, "off", number).await?;
                (self.side(stage, "on", number).await?, off)
            };
            pairs.push(Pair { on, off });
            let table = table(&pairs);
            progress::say(table.lines().last().unwrap_or_default());
        }
        Ok(pairs)
    }

    async fn side(&self, stage: &Stage, stack: &str, number: u32) -> Result<Side> {
        stage.switch(Some(stack)).await?;
        stage.load(self, Duration::from_secs(self.seconds), u64::from(number) + 1).await
    }
}

impl Stage {
    async fn open(place: &Place, system: System) -> Result<Self> {
        let state = place.existing()?;
        let run = RunFile::running(&state)?;
        let operator_token = Secrets::open(&state)?.operator_token()?;
        let store = policies::open(&place.bus("bench").await?).await?;
        let show = make_show(&run.urls.gateway, &operator_token).await?;
        // After the first `Client`, which installs a TLS provider; reqwest comes without.
        let http = http::builder().timeout(FOLLOW_WITHIN).build()?;
        Ok(Self { state, run, system, store, show, operator_token, http })
    }

    /// Puts the stack of every destination on or off, or back to what the blueprints say, and waits until every process
    /// has it so.
    async fn switch(&self, stack: Option<&str>) -> Result<()> {
        for (name, service) in &self.system.services {
            for destination in service.blueprint.calls.keys() {
                let key = format!("{name}.{destination}");
                match stack {
                    Some(stack) => {
                        self.store.put(&key, json!({ "stack": stack }).to_string().into()).await?;
                    }
                    None => self.store.delete(&key).await?,
                }
            }
        }
        let meant = stack.unwrap_or("on");
        let give_up = Instant::now() + FOLLOW_WITHIN;
        for entry in self.services() {
            while !self.follows(entry, meant).await? {
                ensure!(Instant::now() < give_up, "{} does not follow its policies", entry.name);
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    async fn follows(&self, entry: &Entry, stack: &str) -> Result<bool> {
        let admin = entry.ports.get("admin").with_context(|| format!("{} has no admin port", entry.name))?;
        let page = format!("http://127.0.0.1:{admin}/destinations");
        let all: Vec<Value> = self.http.get(page).send().await?.json().await?;
        Ok(all.iter().all(|destination| destination["policy"]["stack"] == stack))
    }

    /// Our services: those with a policy. The provider, the database and the server of messages are others'.
    fn services(&self) -> impl Iterator<Item = &Entry> {
        let has_policy = |entry: &&Entry| {
            self.system.services.get(&entry.kind).is_some_and(|service| !service.blueprint.calls.is_empty())
        };
        self.run.processes.iter().filter(has_policy)
    }

    async fn load(&self, options: &Purchases, lasts: Duration, seed: u64) -> Result<Side> {
        let before = self.cpu()?;
        let summary = load::run(
            Plan {
                url: self.run.urls.gateway.clone(),
                buyers: u64::MAX,
                rate: options.rate,
                shows: vec![self.show.clone()],
                duration: Some(lasts),
                in_flight_max: 5_000,
                habits: Habits::ONLY_BUY,
                seed,
                operator_token: Some(self.operator_token.clone()),
                tokens_url: None,
                history: self.state.root().join("history/bench.jsonl"),
                allow_remote: 0,
            },
            &Stop::default(),
            |_, _| {},
        )
        .await?;
        let cpu = self.cpu()? - before;
        let bad =
            [Outcome::Wrong, Outcome::Silence].map(|outcome| summary.count(outcome)).iter().sum::<u64>();
        ensure!(bad == 0 && summary.confirmed > 0, "this was no good load:\n{summary}");
        Ok(Side { cpu, purchases: summary.confirmed, seconds: summary.seconds })
    }

    /// CPU seconds of all services since they started.
    fn cpu(&self) -> Result<f64> {
        let mut ticks = 0;
        for entry in self.services() {
            let pid = entry.identity.as_ref().with_context(|| format!("{} does not run", entry.name))?.pid;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
                .with_context(|| format!("{} was started anew; its CPU time is lost", entry.name))?;
            ticks += cpu_ticks(&stat).with_context(|| format!("/proc/{pid}/stat cannot be read"))?;
        }
        Ok(ticks as f64 / TICKS_PER_SECOND)
    }
}

/// `utime` and `stime` of proc_pid_stat(5): fields 14 and 15, counted behind the name, which may contain anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// A field without a lobby and with places for everybody. Returns its slug.
async fn make_show(gateway: &str, operator_token: &str) -> Result<String> {
    let slug = format!("bench-{}", Timestamp::now().to_string().to_lowercase().replace([':', '.'], "-"));
    let sections = (1..=SECTIONS).map(|number| NewSection {
        name: format!("Field {number}"),
        price: 4_000,
        seating: Seating::GeneralAdmission(SECTION),
    });
    let show = NewShow {
        slug: slug.clone(),
        title: "A Bench".to_owned(),
        venue: NewVenue { name: "Meadow".to_owned(), city: "Potsdam".to_owned() },
        starts_at: Timestamp::now() + Duration::from_secs(7 * 86_400),
        sale_opens_at: None,
        cancel_until: None,
        currency: "EUR".parse()?,
        sections: sections.collect(),
        lobby: None,
    };
    let client = Client::new(gateway)?;
    let body = serde_json::to_vec(&show)?;
    let made = client.send(Method::POST, "/v1/ops/shows", With::token(operator_token), Some(body)).await?;
    let show: Show = made.json()?;
    let give_up = Instant::now() + FOLLOW_WITHIN;
    let places = u64::from(SECTION) * u64::from(SECTIONS);
    loop {
        let seen: Show = client.show(show.summary.show_id, With::default()).await?.json()?;
        let free: u64 =
            seen.sections.iter().filter_map(|section| section.availability).map(|now| now.free).sum();
        if free == places {
            return Ok(slug);
        }
        ensure!(Instant::now() < give_up, "the new show is not laid out");
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read() {
        let line = "42 (a (b) c) S 1 42 42 0 -1 4194560 9 0 0 0 123 45 0 0 20 0 5 0 99 1 2";
        assert_eq!(cpu_ticks(line), Some(168));
        assert_eq!(cpu_ticks("42"), None);
    }
}
