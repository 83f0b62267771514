//! Comparing our books with the provider's: every operation on either side, and the sums.
//!
//! What is younger than a stated time is left out, because one side may know of it a moment before the other. Only
//! reads, so that the verifier can do it with a read-only role.

mod report;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use stampede_contracts::{StepId, Timestamp};
use stampede_postgres::PgPool;

use self::report::amount;
use crate::clients::{Provider, Unclear};
use crate::store::ledger::{self, OwnOperation};

pub use self::report::{Difference, Report, Sums};

/// Our rows read at once.
const PAGE: i64 = 1_000;
/// Rows whose entries are wrong, listed at most.
const MISBOOKED_MAX: i64 = 100;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The provider's ledger could not be read.
    #[error("the provider's ledger cannot be read")]
    Provider(#[from] Unclear),
    /// Our own could not.
    #[error("our own ledger cannot be read")]
    Database(#[from] sqlx::Error),
}

/// Compares everything that is older than `min_age` at `now`.
///
/// # Errors
/// [`Error`] when one of the ledgers cannot be read.
pub async fn reconcile(
    pool: &PgPool,
    provider: &Provider,
    min_age: Duration,
    now: Timestamp,
) -> Result<Report, Error> {
    let young = now - min_age;
    let mut report = Report { min_age, ..Report::default() };
    let seen = compare_theirs(&mut report, pool, provider, young).await?;
    compare_ours(&mut report, pool, &seen, young).await?;
    for step in ledger::misbooked(pool, MISBOOKED_MAX).await? {
        report.differ(step.to_string(), "its entries do not fit its outcome", "-");
    }
    for balance in ledger::balances(pool).await? {
        if balance.total != 0 {
            let sum = format!("all accounts sum to {}", amount(balance.total, &balance.currency));
            report.differ("double entry", sum, "-");
        }
    }
    Ok(report)
}

/// Everything that the provider has. Returns its keys.
async fn compare_theirs(
    report: &mut Report,
    pool: &PgPool,
    provider: &Provider,
    young: Timestamp,
) -> Result<HashSet<StepId>, Error> {
    let mut seen = HashSet::new();
    let mut after = Some(0);
    while let Some(place) = after {
        let page = provider.ledger(place).await?;
        // A provider whose pages go in a circle would keep us here for ever.
        after = page.next.filter(|next| *next > place);
        // Read after the provider's page: what we did not know then we may know by now.
        let steps: Vec<StepId> = page.operations.iter().filter_map(|row| row.key.parse().ok()).collect();
        let ours: HashMap<StepId, OwnOperation> =
            ledger::operations(pool, &steps).await?.into_iter().map(|ours| (ours.step, ours)).collect();
        seen.extend(steps);
        for theirs in &page.operations {
            let ours = theirs.key.parse().ok().and_then(|step: StepId| ours.get(&step));
            let is_young = theirs.at >= young
                || ours.and_then(|ours| ours.outcome.as_ref()).is_some_and(|(_, at)| *at >= young);
            if is_young {
                report.left_out += 1;
            } else {
                report.compare(&theirs.key, ours, Some(theirs));
            }
        }
    }
    Ok(seen)
}

/// Whatever succeeded with us and the provider has never heard of.
async fn compare_ours(
    report: &mut Report,
    pool: &PgPool,
    seen: &HashSet<StepId>,
    young: Timestamp,
) -> Result<(), Error> {
    let mut after = None;
    loop {
        let page = ledger::succeeded(pool, after, young, PAGE).await?;
        for ours in page.iter().filter(|ours| !seen.contains(&ours.step)) {
            report.compare(&ours.step.to_string(), Some(ours), None);
        }
        match page.last() {
            Some(last) => after = Some(last.step),
            None => return Ok(()),
        }
    }
}
