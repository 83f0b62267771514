//! Rule 4: the provider's ledger in itself, ours in itself, and both against each other, key by key.

use std::collections::HashMap;

use anyhow::Result;
use futures::TryStreamExt;
use stampede_contracts::{OrderId, StepId};
use uuid::Uuid;

use super::picture::Orders;
use super::report::Found;
use super::snapshot::{Snapshots, count, find};

/// Our reference of a void that found nothing reserved: nothing of it reached the provider.
const NOTHING_TO_VOID: &str = "nothing_to_void";

/// One key as one side has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// What was asked.
    kind: String,
    /// What came of it.
    fate: Fate,
    amount: i64,
    currency: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// The provider's name for it.
    Done(String),
    Declined,
    /// Refused, or cancelled before it came.
    Not,
    /// Not known yet; only on our side.
    Open,
}

pub(super) async fn check(now: &mut Snapshots, orders: &Orders) -> Result<Found> {
    let mut found = Found::default();
    count(&mut found, &mut now.psp, "operations of the provider", "SELECT count(*) FROM operation").await?;
    find(&mut found, &mut now.psp, now.cutoff, CAPTURED_TWICE).await?;
    find(&mut found, &mut now.psp, now.cutoff, ENDED_TWICE).await?;
    unended(&mut found, now, orders).await?;
    count(&mut found, &mut now.payments, "entries in our books", "SELECT count(*) FROM entry").await?;
    for query in [UNBALANCED, MISBOOKED] {
        find(&mut found, &mut now.payments, now.cutoff, query).await?;
    }
    compare(&mut found, now, orders).await?;
    Ok(found)
}

const CAPTURED_TWICE: &str = "
    SELECT format('the provider captured %s times for %s: keys %s', count(*), reference,
        string_agg(key, ', ' ORDER BY seq))
    FROM operation WHERE status = 'captured' GROUP BY reference HAVING count(*) > 1";

const ENDED_TWICE: &str = "
    SELECT format('authorisation %s ended %s times: %s', about, count(*),
        string_agg(format('%s by %s', status, key), ', ' ORDER BY seq))
    FROM operation WHERE status IN ('captured', 'voided') GROUP BY about HAVING count(*) > 1
    UNION ALL
    SELECT format('%s gave back %s of capture %s, which took %s', refund.reference, sum(refund.amount), capture.id,
        capture.amount)
    FROM operation refund JOIN operation capture ON capture.id = refund.about
    WHERE refund.status = 'refunded'
    GROUP BY refund.reference, capture.id, capture.amount HAVING sum(refund.amount) > capture.amount";

const UNBALANCED: &str = "
    SELECT format('the entries of stp_%s sum to %s %s', replace(step_id::text, '-', ''), sum(amount), currency)
    FROM entry GROUP BY step_id, currency HAVING sum(amount) <> 0";

/// A capture is booked from the provider to sales, a refund from refunds to the provider, and nothing else is.
const MISBOOKED: &str = "
    SELECT format('stp_%s is %s %s %s %s, and booked as %s', replace(o.step_id::text, '-', ''), o.action, o.amount,
        o.currency, coalesce(o.outcome, 'open'), coalesce(e.lines, 'nothing'))
    FROM operation o LEFT JOIN (
        SELECT step_id, string_agg(format('%s %s %s', account, amount, currency), ', ' ORDER BY account) AS lines
        FROM entry GROUP BY step_id
        -- What does not even sum to zero has its own sentence.
        HAVING sum(amount) = 0
    ) AS e USING (step_id)
    WHERE coalesce(e.lines, '') <> CASE
            WHEN o.outcome = 'succeeded' AND o.action = 'capture'
                THEN format('receivable:psp %s %s, sales %s %s', o.amount, o.currency, -o.amount, o.currency)
            WHEN o.outcome = 'succeeded' AND o.action = 'refund'
                THEN format('receivable:psp %s %s, refunds %s %s', -o.amount, o.currency, o.amount, o.currency)
            ELSE '' END
        AND NOT EXISTS (SELECT FROM entry WHERE entry.step_id = o.step_id HAVING sum(amount) <> 0)";

/// Every authorisation of an order that has come to rest was captured or voided.
async fn unended(found: &mut Found, now: &mut Snapshots, orders: &Orders) -> Result<()> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT authorised.key, authorised.id, coalesce(authorised.reference, 'nothing')
         FROM operation authorised
         WHERE authorised.status = 'authorised' AND NOT EXISTS (
            SELECT FROM operation ended
            WHERE ended.about = authorised.id AND ended.status IN ('captured', 'voided'))",
    )
    .fetch_all(&mut *now.psp)
    .await?;
    for (key, authorisation, reference) in rows {
        let order = reference.parse().ok().and_then(|id: OrderId| orders.get(&id));
        // What has not come to rest is another rule's.
        if order.is_none_or(|order| order.is_settled) {
            let state = order.map_or("not there", |order| order.state.as_str());
            found.broken(format!(
                "authorisation {authorisation} (key {key}) is neither captured nor voided, and {reference} is {state}"
            ));
        }
    }
    Ok(())
}

async fn compare(found: &mut Found, now: &mut Snapshots, orders: &Orders) -> Result<()> {
    let mut theirs = provider(now).await?;
    let mut rows = sqlx::query_as::<_, OurRow>(
        "SELECT step_id, order_id, action, amount, currency, outcome, reference,
            coalesce(settled_at < $1, false) AS is_old FROM operation",
    )
    .bind(now.cutoff)
    .fetch(&mut *now.payments);
    let mut compared = 0_u64;
    while let Some(row) = rows.try_next().await? {
        compared += 1;
        let key = StepId::from_uuid(row.step_id);
        let order = OrderId::from_uuid(row.order_id);
        let is_settled = orders.get(&order).is_some_and(|order| order.is_settled);
        let (is_old, ours) = (row.is_old, row.entry());
        let theirs = theirs.remove(&key.to_string());
        if (is_old || is_settled) && !agree(&ours, theirs.as_ref()) {
            let theirs = theirs.as_ref().map_or_else(|| "nothing".to_owned(), show);
            found.broken(format!("key {key} of {order}: we have {}, the provider has {theirs}", show(&ours)));
        }
    }
    found.checked(compared, "operations of ours");
    // Whatever the provider does was asked for by a row that our later snapshot has.
    for (key, theirs) in theirs.iter().filter(|(_, theirs)| matches!(theirs.fate, Fate::Done(_))) {
        found.broken(format!("key {key}: the provider has {}, and we never asked for it", show(theirs)));
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct OurRow {
    step_id: Uuid,
    order_id: Uuid,
    action: String,
    amount: i64,
    currency: String,
    outcome: Option<String>,
    reference: Option<String>,
    is_old: bool,
}

impl OurRow {
    fn entry(self) -> Entry {
        let fate = match (self.outcome.as_deref(), self.reference) {
            (Some("succeeded"), Some(reference)) if reference != NOTHING_TO_VOID => Fate::Done(reference),
            (Some("declined"), _) => Fate::Declined,
            (Some(_), _) => Fate::Not,
            (None, _) => Fate::Open,
        };
        Entry { kind: self.action, fate, amount: self.amount, currency: self.currency }
    }
}

async fn provider(now: &mut Snapshots) -> Result<HashMap<String, Entry>> {
    let mut rows =
        sqlx::query_as::<_, (String, String, String, Option<String>, Option<i64>, Option<String>)>(
            "SELECT key, kind, status, id, amount, currency FROM operation",
        )
        .fetch(&mut *now.psp);
    let mut entries = HashMap::new();
    while let Some((key, kind, status, id, amount, currency)) = rows.try_next().await? {
        let fate = match (status.as_str(), id) {
            ("authorised" | "captured" | "voided" | "refunded", Some(id)) => Fate::Done(id),
            ("declined", _) => Fate::Declined,
            _ => Fate::Not,
        };
        let (amount, currency) = (amount.unwrap_or(0), currency.unwrap_or_default());
        entries.insert(key, Entry { kind, fate, amount, currency });
    }
    Ok(entries)
}

/// Whether both sides mean the same. What did not happen need not be known to both.
fn agree(ours: &Entry, theirs: Option<&Entry>) -> bool {
    let done = theirs.filter(|theirs| matches!(theirs.fate, Fate::Done(_)));
    match ours.fate {
        Fate::Done(_) => done.is_some_and(|theirs| theirs == ours),
        Fate::Declined => theirs.is_some_and(|theirs| theirs.fate == Fate::Declined),
        Fate::Not | Fate::Open => done.is_none(),
    }
}

fn show(entry: &Entry) -> String {
    let fate = match &entry.fate {
        Fate::Done(reference) => reference,
        Fate::Declined => "declined",
        Fate::Not => "not done",
        Fate::Open => "open",
    };
    format!("{} {} {} ({fate})", entry.kind, entry.amount, entry.currency)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(fate: Fate) -> Entry {
        Entry { kind: "capture".to_owned(), fate, amount: 4_500, currency: "EUR".to_owned() }
    }

    fn done(reference: &str) -> Fate {
        Fate::Done(reference.to_owned())
    }

    #[test]
    fn what_was_done_is_the_same_on_both_sides() {
        let ours = capture(done("cap_1"));
        assert!(agree(&ours, Some(&ours)));
        assert!(!agree(&ours, None));
        assert!(!agree(&ours, Some(&capture(done("cap_2")))));
        assert!(!agree(&ours, Some(&Entry { amount: 4_501, ..ours.clone() })));
        assert!(!agree(&ours, Some(&capture(Fate::Not))));
    }

    #[test]
    fn what_was_not_done_need_not_be_known_to_both() {
        for nothing in [Fate::Not, Fate::Open] {
            assert!(agree(&capture(nothing.clone()), None));
            assert!(agree(&capture(nothing.clone()), Some(&capture(Fate::Not))));
            assert!(!agree(&capture(nothing), Some(&capture(done("cap_1")))));
        }
        assert!(agree(&capture(Fate::Declined), Some(&capture(Fate::Declined))));
        assert!(!agree(&capture(Fate::Declined), None), "only the provider declines");
    }
}
