//! `stampede verify`: whether what must always hold does hold, by every database, by the payment provider's own
//! ledger, by what buyers were told, and by what lies in streams and logs.
//!
//! A rule is a query that gives a sentence for every broken case where one database knows enough, and a function over
//! rows where it takes two. Nothing is written, and no query is made per row.

mod ends;
mod journal;
mod kept;
mod leaks;
mod ledgers;
mod lobby;
mod markers;
mod picture;
mod price;
mod report;
mod rest;
mod rule;
mod sales;
mod seats;
mod snapshot;
mod sources;
mod told;

use std::time::Duration;

use anyhow::{Context, Result};

pub use report::{Found, Report};
pub use rest::Restless;
pub use rule::Rule;
pub use sources::{Databases, Elsewhere, Sources};

use self::snapshot::Snapshots;
use self::told::Told;

/// What is waited for, and what is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long to wait until everything has come to rest. What has not by then breaks rule 9.
    pub settle_within: Duration,
    /// What is younger is not waited for and not looked at where it may still be on its way.
    pub younger_than: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { settle_within: Duration::from_secs(120), younger_than: Duration::ZERO }
    }
}

/// Checks every rule. `progress` hears what is waited for, each time it changes.
///
/// # Errors
/// When something cannot be read; a broken rule is no error but stands in the report.
pub async fn verify(sources: &Sources, options: &Options, progress: impl FnMut(&Restless)) -> Result<Report> {
    let mut report = Report::default();
    report.restless = rest::wait(&sources.databases, options, progress).await?;
    // Before the snapshots: whatever was acknowledged by now must be in them.
    let histories = sources.histories.clone();
    let told = tokio::task::spawn_blocking(move || Told::read(&histories)).await??;
    let mut now = Snapshots::take(&sources.databases, options.younger_than).await?;
    check(&mut report, &mut now, sources, &told).await?;
    Ok(report)
}

async fn check(report: &mut Report, now: &mut Snapshots, sources: &Sources, told: &Told) -> Result<()> {
    let orders = picture::orders(now).await.context("orders")?;
    let holds = picture::holds(now).await.context("holds")?;
    let forgotten = picture::forgotten(now).await.context("what is forgotten")?;
    report.add(Rule::SeatOnce, seats::once(now).await.context("rule 1")?);
    report.add(Rule::Capacity, seats::accounted_for(now).await.context("rule 2")?);
    let charges = price::charges(now).await.context("rule 3")?;
    report.add(Rule::Price, price::check(&orders, &holds, &charges));
    report.add(Rule::Ledgers, ledgers::check(now, &orders).await.context("rule 4")?);
    report.add(Rule::Attached, journal::order_decides(now).await.context("rule 5")?);
    report.add(Rule::Attached, sales::check(&orders, &holds, &forgotten));
    let promises = kept::check(now, told, &orders, &forgotten).await.context("rules 7 and 8")?;
    report.add(Rule::Kept, promises.kept);
    report.add(Rule::SameReply, promises.same);
    report.add(Rule::Ends, ends::check(now, &orders, &holds).await.context("rule 9")?);
    report.add(Rule::Ends, ends::mails(now, sources.mails.clone()).await.context("rule 9")?);
    report.add(Rule::Lobby, lobby::check(now, &holds, &forgotten).await.context("rule 11")?);
    report.add(Rule::Private, private(now, sources).await.context("what is personal")?);
    Ok(())
}

async fn private(now: &mut Snapshots, sources: &Sources) -> Result<Found> {
    let markers = leaks::markers(now).await?;
    let mut found = Found::default();
    found.checked(markers.len(), "values looked for");
    if let Some(client) = &sources.nats {
        leaks::streams(&mut found, client, &markers).await?;
    }
    found.add(leaks::files(sources.logs.clone(), markers).await?);
    Ok(found)
}
