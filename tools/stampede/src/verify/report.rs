//! What was checked and what is broken, and the table of it.

use std::collections::BTreeMap;
use std::fmt;

use super::Rule;

/// Broken cases that are listed for one rule; more are only counted.
const LISTED_MAX: usize = 20;
/// Width of the titles in the table.
const TITLE: usize = 44;

/// What one check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many of what were looked at.
    pub checked: Vec<(u64, &'static str)>,
    /// The first broken cases, a sentence each.
    pub listed: Vec<String>,
    /// All of them.
    pub broken: u64,
}

impl Found {
    /// Notes how many of what were looked at.
    pub(super) fn checked(&mut self, number: impl TryInto<u64>, what: &'static str) {
        let number = number.try_into().unwrap_or_default();
        match self.checked.iter_mut().find(|(_, known)| *known == what) {
            Some((sum, _)) => *sum += number,
            None => self.checked.push((number, what)),
        }
    }

    /// Notes a broken case.
    pub(super) fn broken(&mut self, sentence: impl Into<String>) {
        self.broken += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push(sentence.into());
        }
    }

    /// Notes broken cases that somebody else counted, of which these were listed.
    pub(super) fn broken_many(&mut self, total: u64, sentences: Vec<String>) {
        self.broken += total;
        let room = LISTED_MAX.saturating_sub(self.listed.len());
        self.listed.extend(sentences.into_iter().take(room));
    }

    pub(super) fn add(&mut self, other: Self) {
        for (number, what) in other.checked {
            self.checked(number, what);
        }
        self.broken_many(other.broken, other.listed);
    }

    fn has_checked_nothing(&self) -> bool {
        self.checked.iter().all(|(number, _)| *number == 0)
    }
}

/// What was found for every rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    found: BTreeMap<Rule, Found>,
    /// What did not come to rest in the time there was; empty when everything did.
    pub restless: Vec<(i64, &'static str)>,
}

impl Report {
    pub(super) fn add(&mut self, rule: Rule, found: Found) {
        self.found.entry(rule).or_default().add(found);
    }

    /// What was found for a rule.
    #[must_use]
    pub fn of(&self, rule: Rule) -> Option<&Found> {
        self.found.get(&rule)
    }

    /// The rules that are broken.
    #[must_use]
    pub fn broken(&self) -> Vec<Rule> {
        self.found.iter().filter(|(_, found)| found.broken > 0).map(|(rule, _)| *rule).collect()
    }

    /// Whether every rule holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.broken().is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>4}  {:<TITLE$}{:>8}  CHECKED", "RULE", "WHAT MUST HOLD", "BROKEN")?;
        for rule in Rule::ALL {
            let Some(found) = self.of(rule) else { continue };
            writeln!(
                f,
                "{:>4}  {:<TITLE$}{:>8}  {}",
                rule.number(),
                rule.title(),
                found.broken,
                Counts(found)
            )?;
        }
        if !self.restless.is_empty() {
            let left: Vec<String> =
                self.restless.iter().map(|(number, what)| format!("{number} {what}")).collect();
            writeln!(f, "\nnot everything came to rest: {}", left.join(", "))?;
        }
        for rule in self.broken() {
            let Some(found) = self.of(rule) else { continue };
            writeln!(f, "\nrule {} is broken: {}", rule.number(), rule.title())?;
            for sentence in &found.listed {
                writeln!(f, "  - {sentence}")?;
            }
            let more = found.broken - u64::try_from(found.listed.len()).unwrap_or(found.broken);
            if more > 0 {
                writeln!(f, "  … and {more} more")?;
            }
        }
        match self.broken().len() {
            0 => write!(f, "\neverything holds that was checked"),
            1 => write!(f, "\n1 rule is broken"),
            broken => write!(f, "\n{broken} rules are broken"),
        }
    }
}

/// What was looked at, in words.
struct Counts<'a>(&'a Found);

impl fmt::Display for Counts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.has_checked_nothing() {
            return f.write_str("nothing");
        }
        for (place, (number, what)) in self.0.checked.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{} {what}", grouped(*number))?;
        }
        Ok(())
    }
}

/// With a comma before every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_checked_nothing_says_so_and_a_broken_one_says_why() {
        let mut report = Report::default();
        let mut found = Found::default();
        found.checked(1_234_567_u64, "tickets");
        report.add(Rule::SeatOnce, found);
        report.add(Rule::SameReply, Found { checked: vec![(0, "keys")], ..Found::default() });
        assert!(report.holds());
        let text = report.to_string();
        assert!(text.contains("1,234,567 tickets") && text.contains("  nothing\n"), "{text}");
        assert!(text.ends_with("everything holds that was checked"), "{text}");

        let mut found = Found::default();
        (0..50).for_each(|number| found.broken(format!("order {number}")));
        report.add(Rule::Price, found);
        assert_eq!(report.broken(), [Rule::Price]);
        let text = report.to_string();
        assert!(
            text.contains("  - order 19\n  … and 30 more\n") && text.ends_with("1 rule is broken"),
            "{text}"
        );
    }

    #[test]
    fn findings_of_one_rule_add_up() {
        let mut report = Report::default();
        for _ in 0..2 {
            let mut found = Found::default();
            found.checked(2, "holds");
            found.broken("one");
            report.add(Rule::Ends, found);
        }
        let found = report.of(Rule::Ends).unwrap();
        assert_eq!((found.checked.as_slice(), found.broken), ([(4, "holds")].as_slice(), 2));
    }

    #[test]
    fn large_numbers_are_readable() {
        assert_eq!([0, 12, 123, 1_234, 123_456].map(grouped), ["0", "12", "123", "1,234", "123,456"]);
    }
}
