//! What every service does in its image while nobody is there: it names what it lacks, waits, and says for what.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Report;
use super::inside;
use super::jail::Jail;
use super::names::{IN_HOSTS, Names, REFUSED};
use super::run::Run;
use crate::env;
use crate::layout::{Layout, PublicPorts};
use crate::scratch::Scratch;
use crate::secrets::Secrets;
use crate::services::{Replicas, Service};
use crate::signals::ENDED_BY_SIGTERM;
use crate::state::StateDir;

/// Half a day from UTC, so that a process which took notice of it would be seen.
const ELSEWHERE: &str = "XXX-12";

type Pairs = Vec<(String, String)>;

/// Settings with which a service can start, and somebody it cannot reach.
struct Settings {
    /// Where it listens and where others are.
    given: Pairs,
    /// All the rest.
    known: Pairs,
    admin: u16,
}

/// Runs all checks of a service.
pub(super) async fn checks(service: &Service, jail: &Jail, names: &Names, report: &mut Report) -> Result<()> {
    let scratch = Scratch::new("try")?;
    let began = Instant::now();
    let settings = Settings::of(service, &scratch)?;
    let asked = match settings.asked_for(jail).await {
        Ok(asked) => asked,
        // Without its settings it does not come so far as to do anything else.
        Err(error) => {
            report.tell(began, Err(error));
            return Ok(());
        }
    };
    report.tell(began, Ok(format!("asks for {}", keys(&asked))));

    let began = Instant::now();
    report.tell(began, settings.waits(service, &asked, jail).await);
    let began = Instant::now();
    report.tell(began, settings.finds(service, &asked, jail, names).await);
    Ok(())
}

impl Settings {
    fn of(service: &Service, scratch: &Scratch) -> Result<Self> {
        let state = StateDir::create(scratch.path())?;
        let layout = Layout::plan(&Replicas::default(), PublicPorts::Random)?;
        let instance = layout.instances.iter().find(|instance| instance.service == service);
        let instance = instance.context("it has no place in the layout")?;
        let all = env::of(instance, &layout, &state, &Secrets::open(&state)?, &[])?;
        let (mut given, known): (Pairs, Pairs) =
            all.into_iter().partition(|(key, _)| key.ends_with("_LISTEN") || key == "NATS_URL");
        given.extend(
            [("LOG_FORMAT", "json"), ("TZ", ELSEWHERE)].map(|(key, value)| (key.into(), value.into())),
        );
        Ok(Self { given, known, admin: instance.ports.get("admin").copied().unwrap_or_default() })
    }

    /// Starts it with nothing, gives it what it says is missing, and so on until it waits for somebody.
    async fn asked_for(&self, jail: &Jail) -> Result<Pairs> {
        let mut asked = Pairs::new();
        loop {
            let mut run = Run::start(jail.command(&[], &self.env(&asked, IN_HOSTS)?)?)?;
            if run.until(Waiting::read).await?.is_some() {
                run.stop().await?;
                ensure!(!asked.is_empty(), "it starts without any of its secrets");
                return Ok(asked);
            }
            let status = run.ended().await?;
            let said = run.said();
            let missing = |(key, _): &&(String, String)| said.contains(&format!("{key} is not set"));
            match self.known.iter().find(missing) {
                Some(pair) if !status.success() && !asked.contains(pair) => asked.push(pair.clone()),
                _ => bail!("it ended ({status}) without naming a setting that is missing:\n{}", run.tail()),
            }
        }
    }

    /// Alive and not ready, as the user it should be, and with a clock that is right.
    async fn waits(&self, service: &Service, asked: &Pairs, jail: &Jail) -> Result<String> {
        let began = OffsetDateTime::now_utc();
        let mut run = Run::start(jail.command(&[], &self.env(asked, IN_HOSTS)?)?)?;
        let outcome = self.look_at(&mut run, began, service).await;
        if outcome.is_err() {
            run.stop().await?;
            return outcome;
        }
        // By its own hand: nothing else ends number 1 of a container before it is killed.
        let status = run.ask_to_end().await?;
        ensure!(
            status.code() == Some(i32::from(ENDED_BY_SIGTERM)),
            "asked to end while it waited, it ended with {status}"
        );
        outcome
    }

    async fn look_at(&self, run: &mut Run, began: OffsetDateTime, service: &Service) -> Result<String> {
        let waiting = Waiting::first(run).await?;
        ensure!(waiting.message == expected(service), "it waits for something else: {:?}", waiting.message);
        ensure!(
            waiting.fields.error.contains(REFUSED),
            "nobody is there, and it says {:?}",
            waiting.fields.error
        );
        for (path, status) in [("livez", StatusCode::OK), ("readyz", StatusCode::SERVICE_UNAVAILABLE)] {
            let answer = crate::http::client().get(format!("http://127.0.0.1:{}/{path}", self.admin)).send();
            let answer = answer.await.with_context(|| format!("/{path}"))?.status();
            ensure!(answer == status, "/{path} says {answer} instead of {status}");
        }
        inside::check(run.pid()?)?;
        let said_at = OffsetDateTime::parse(&waiting.timestamp, &Rfc3339)?;
        ensure!(
            said_at.offset().is_utc() && (began..=OffsetDateTime::now_utc()).contains(&said_at),
            "its clock is wrong: {} is not just now, in UTC",
            waiting.timestamp
        );
        Ok(format!("live, not ready: {}; ends when asked to", waiting.message))
    }

    /// Every name leads to where it should, and one that nobody knows is called so.
    async fn finds(&self, service: &Service, asked: &Pairs, jail: &Jail, names: &Names) -> Result<String> {
        for (name, error) in names.all() {
            let mut run = Run::start(jail.command(&[], &self.env(asked, name)?)?)?;
            let waiting = Waiting::first(&mut run).await;
            run.stop().await?;
            let waiting = waiting?;
            ensure!(
                waiting.message == expected(service) && waiting.fields.error.contains(error),
                "of the host {name} it should say {error:?}, and says {:?}: {:?}",
                waiting.message,
                waiting.fields.error
            );
        }
        Ok(names.described().to_owned())
    }

    /// An environment in which Postgres and NATS are said to be on that host.
    fn env(&self, asked: &Pairs, host: &str) -> Result<Pairs> {
        let pairs = self.given.iter().chain(asked);
        pairs
            .map(|(key, value)| match key.as_str() {
                "DATABASE_URL" | "NATS_URL" => Ok((key.clone(), at_host(value, host)?)),
                _ => Ok((key.clone(), value.clone())),
            })
            .collect()
    }
}

/// The first line in which a service says that somebody is not there.
#[derive(Deserialize)]
struct Waiting {
    timestamp: String,
    message: String,
    fields: Fields,
}

#[derive(Deserialize)]
struct Fields {
    error: String,
}

const NO_DATABASE: &str = "the database cannot be reached yet";
const NO_NATS: &str = "no NATS server yet";

impl Waiting {
    fn read(line: &str) -> Option<Self> {
        let line: Self = serde_json::from_str(line).ok()?;
        [NO_DATABASE, NO_NATS].contains(&line.message.as_str()).then_some(line)
    }

    async fn first(run: &mut Run) -> Result<Self> {
        match run.until(Self::read).await? {
            Some(waiting) => Ok(waiting),
            None => bail!("it ended instead of waiting:\n{}", run.tail()),
        }
    }
}

/// Whom it waits for first.
fn expected(service: &Service) -> &'static str {
    if service.database.is_some() { NO_DATABASE } else { NO_NATS }
}

fn at_host(url: &str, host: &str) -> Result<String> {
    let mut url: Url = url.parse()?;
    url.set_host(Some(host))?;
    Ok(url.into())
}

fn keys(pairs: &Pairs) -> String {
    pairs.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_the_same_at_another_host() {
        let url = "postgres://orders:secret@127.0.0.1:5432/orders?sslmode=disable";
        let there = "postgres://orders:secret@there.test:5432/orders?sslmode=disable";
        assert_eq!(at_host(url, "there.test").unwrap(), there);
    }

    #[test]
    fn only_waiting_is_waiting() {
        let line = |message: &str| {
            format!(
                r#"{{"timestamp":"t","level":"WARN","message":"{message}","fields":{{"error":"refused"}}}}"#
            )
        };
        assert_eq!(Waiting::read(&line(NO_DATABASE)).unwrap().fields.error, "refused");
        assert!(Waiting::read(&line(NO_NATS)).is_some());
        assert!(Waiting::read(&line("serving")).is_none());
        assert!(Waiting::read("Error: KEY is not set; expected a secret").is_none());
    }
}
