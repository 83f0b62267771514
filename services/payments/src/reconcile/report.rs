//! What reconciliation found, and how it reads.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use stampede_contracts::event::PaymentOutcome;

use crate::clients::LedgerRow;
use crate::domain::NOTHING_TO_VOID;
use crate::store::ledger::OwnOperation;

/// Differences that are listed; more are only counted.
const LISTED_MAX: usize = 200;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Keys that were compared.
    pub compared: u64,
    /// Keys that were left out because they are too young.
    pub left_out: u64,
    /// How young.
    pub min_age: Duration,
    /// Captured and refunded by currency, of what was compared.
    pub sums: BTreeMap<String, Sums>,
    /// The first differences.
    pub differences: Vec<Difference>,
    /// All of them.
    pub difference_count: u64,
}

/// Sums of one currency, in minor units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Captured and refunded by our books.
    pub ours: (i64, i64),
    /// Captured and refunded by the provider's.
    pub theirs: (i64, i64),
}

/// Where the books differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key: a step, or whatever the provider has.
    pub key: String,
    /// What we have.
    pub ours: String,
    /// What the provider has.
    pub theirs: String,
}

impl Report {
    /// Whether the books agree.
    pub const fn agrees(&self) -> bool {
        self.difference_count == 0
    }

    pub(super) fn differ(
        &mut self,
        key: impl Into<String>,
        ours: impl Into<String>,
        theirs: impl Into<String>,
    ) {
        self.difference_count += 1;
        if self.differences.len() < LISTED_MAX {
            self.differences.push(Difference { key: key.into(), ours: ours.into(), theirs: theirs.into() });
        }
    }

    pub(super) fn compare(&mut self, key: &str, ours: Option<&OwnOperation>, theirs: Option<&LedgerRow>) {
        self.compared += 1;
        if let Some(OwnOperation {
            action,
            amount,
            outcome: Some((PaymentOutcome::Succeeded { .. }, _)),
            ..
        }) = ours
        {
            let sums = self.sums.entry(amount.currency().to_string()).or_default();
            add(&mut sums.ours, action.as_str(), amount.amount());
        }
        if let Some(LedgerRow { currency: Some(currency), amount: Some(amount), kind, .. }) =
            theirs.filter(is_done)
        {
            let sums = self.sums.entry(currency.clone()).or_default();
            add(&mut sums.theirs, kind, *amount);
        }
        if !agree(ours, theirs) {
            self.differ(key, show_ours(ours), show_theirs(theirs));
        }
    }
}

/// Whether both sides mean the same. What did not happen need not be known to both.
fn agree(ours: Option<&OwnOperation>, theirs: Option<&LedgerRow>) -> bool {
    let done_there = theirs.filter(is_done);
    match ours.and_then(|ours| Some((ours, &ours.outcome.as_ref()?.0))) {
        Some((ours, PaymentOutcome::Succeeded { reference })) if reference != NOTHING_TO_VOID => done_there
            .is_some_and(|theirs| {
                theirs.id.as_deref() == Some(reference)
                    && theirs.kind == ours.action.as_str()
                    && theirs.amount == Some(ours.amount.amount())
                    && theirs.currency.as_deref() == Some(ours.amount.currency().as_str())
            }),
        Some((_, PaymentOutcome::Declined { .. })) => {
            theirs.is_some_and(|theirs| theirs.status == "declined")
        }
        // Refused, nothing to void, open, or never heard of: then nothing may have happened there.
        _ => done_there.is_none(),
    }
}

// A reference to a reference, as `Option::filter` has it.
fn is_done(theirs: &&LedgerRow) -> bool {
    matches!(theirs.status.as_str(), "authorised" | "captured" | "voided" | "refunded")
}

fn add((captured, refunded): &mut (i64, i64), kind: &str, amount: i64) {
    match kind {
        "capture" => *captured += amount,
        "refund" => *refunded += amount,
        _ => {}
    }
}

fn show_ours(ours: Option<&OwnOperation>) -> String {
    let Some(ours) = ours else { return "nothing".to_owned() };
    let outcome = match &ours.outcome {
        None => "open".to_owned(),
        Some((PaymentOutcome::Succeeded { reference }, _)) => reference.clone(),
        Some((PaymentOutcome::Declined { reason }, _)) => format!("declined ({reason})"),
        Some((PaymentOutcome::Refused { reason }, _)) => format!("refused ({reason})"),
    };
    format!("{} {}: {outcome}", ours.action.as_str(), ours.amount)
}

fn show_theirs(theirs: Option<&LedgerRow>) -> String {
    let Some(theirs) = theirs else { return "nothing".to_owned() };
    let amount = amount(theirs.amount.unwrap_or(0), theirs.currency.as_deref().unwrap_or(""));
    format!("{} {amount}: {}", theirs.kind, theirs.id.as_deref().unwrap_or(&theirs.status))
}

/// Minor units as a person reads them.
pub(super) fn amount(minor: i64, currency: &str) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let minor = minor.unsigned_abs();
    format!("{sign}{}.{:02} {currency}", minor / 100, minor % 100)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} operations compared, {} left out because they are younger than {} s",
            self.compared,
            self.left_out,
            self.min_age.as_secs(),
        )?;
        if !self.sums.is_empty() {
            writeln!(f, "\n{:<10} {:>20} {:>20}", "", "our books", "the provider's")?;
        }
        for (currency, Sums { ours, theirs }) in &self.sums {
            for (word, ours, theirs) in [("captured", ours.0, theirs.0), ("refunded", ours.1, theirs.1)] {
                writeln!(f, "{word:<10} {:>20} {:>20}", amount(ours, currency), amount(theirs, currency))?;
            }
        }
        if self.agrees() {
            return writeln!(f, "\nthe books agree");
        }
        writeln!(f, "\n{:<37} {:<60} the provider's", "key", "our books")?;
        for Difference { key, ours, theirs } in &self.differences {
            writeln!(f, "{key:<37} {ours:<60} {theirs}")?;
        }
        writeln!(f, "\ndifferences: {}", self.difference_count)
    }
}

#[cfg(test)]
mod tests {
    use stampede_contracts::command::PaymentAction;
    use stampede_contracts::{Money, OrderId, StepId, Timestamp};

    use super::*;

    fn ours(outcome: Option<PaymentOutcome>) -> OwnOperation {
        OwnOperation {
            step: StepId::new(),
            order: OrderId::new(),
            action: PaymentAction::Capture,
            amount: Money::try_new(4_500, "EUR".parse().unwrap()).unwrap(),
            outcome: outcome.map(|outcome| (outcome, Timestamp::now())),
        }
    }

    fn succeeded(reference: &str) -> Option<PaymentOutcome> {
        Some(PaymentOutcome::Succeeded { reference: reference.to_owned() })
    }

    fn theirs(status: &str) -> LedgerRow {
        LedgerRow {
            key: "k".to_owned(),
            kind: "capture".to_owned(),
            status: status.to_owned(),
            id: Some("cap_1".to_owned()),
            amount: Some(4_500),
            currency: Some("EUR".to_owned()),
            at: Timestamp::now(),
        }
    }

    #[test]
    fn what_succeeded_must_be_the_same_on_both_sides() {
        let captured = theirs("captured");
        assert!(agree(Some(&ours(succeeded("cap_1"))), Some(&captured)));
        assert!(!agree(Some(&ours(succeeded("cap_2"))), Some(&captured)));
        assert!(!agree(Some(&ours(succeeded("cap_1"))), None));
        assert!(!agree(None, Some(&captured)));
        assert!(!agree(Some(&ours(None)), Some(&captured)), "open here and done there");
        let other_amount = LedgerRow { amount: Some(4_501), ..captured };
        assert!(!agree(Some(&ours(succeeded("cap_1"))), Some(&other_amount)));
    }

    #[test]
    fn what_did_not_happen_need_not_be_known_to_both() {
        let refused = Some(PaymentOutcome::Refused { reason: "voided".to_owned() });
        assert!(agree(Some(&ours(refused.clone())), None));
        assert!(agree(Some(&ours(refused.clone())), Some(&theirs("cancelled"))));
        assert!(!agree(Some(&ours(refused)), Some(&theirs("captured"))));
        assert!(agree(Some(&ours(succeeded(NOTHING_TO_VOID))), None));
        assert!(agree(None, Some(&theirs("refused"))));
        let declined = Some(PaymentOutcome::Declined { reason: "card_declined".to_owned() });
        assert!(agree(Some(&ours(declined.clone())), Some(&theirs("declined"))));
        assert!(!agree(Some(&ours(declined)), None), "only the provider declines");
    }

    #[test]
    fn the_report_says_where_the_books_differ() {
        let mut report = Report { min_age: Duration::from_secs(60), ..Report::default() };
        report.compare("stp_1", Some(&ours(succeeded("cap_1"))), Some(&theirs("captured")));
        assert!(report.agrees() && report.to_string().contains("the books agree"), "{report}");
        report.compare("stp_2", None, Some(&theirs("captured")));
        assert!(!report.agrees());
        let text = report.to_string();
        assert!(text.contains("stp_2") && text.contains("nothing") && text.contains("90.00 EUR"), "{text}");
    }
}
