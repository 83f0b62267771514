//! The figures of a benchmark, and what was asked of them.

mod asked;
pub(crate) mod pairs;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use self::asked::{ASKED, Asked, Bound};

/// What was measured: nanoseconds and allocations a call by `group/name`.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    nanos: BTreeMap<String, f64>,
    allocations: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

impl Measured {
    /// Reads what criterion left in its folder.
    pub(crate) fn read(home: &Path) -> anyhow::Result<Self> {
        let mut nanos = BTreeMap::new();
        for asked in ASKED {
            for (group, name) in asked.all() {
                let file = home.join(group).join(name).join("new/estimates.json");
                let text = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
                let estimates: Estimates = serde_json::from_slice(&text)?;
                nanos.insert(id(group, name), estimates.median.point_estimate);
            }
        }
        let file = home.join("allocations.json");
        let text = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        Ok(Self { nanos, allocations: serde_json::from_slice(&text)? })
    }

    fn nanos(&self, (group, name): (&str, &str)) -> f64 {
        self.nanos.get(&id(group, name)).copied().unwrap_or(f64::NAN)
    }
}

fn id(group: &str, name: &str) -> String {
    format!("{group}/{name}")
}

/// One row a figure that was asked for.
pub(crate) fn table(measured: &Measured) -> String {
    let mut table = String::from(
        "| pattern | ours, ns | allocations | beside | ns | ratio | asked | kept |\n|---|--:|--:|---|--:|--:|---|---|\n",
    );
    for asked in ASKED {
        let Asked { group, ours, peer, bound } = asked;
        let own = measured.nanos((group, ours));
        let other = peer.map(|peer| measured.nanos(peer));
        let ratio = other.map_or_else(|| "–".to_owned(), |other| format!("{:.2}", own / other));
        let beside = peer.map_or_else(|| "–".to_owned(), |(_, name)| name.to_owned());
        let allocations =
            measured.allocations.get(&id(group, ours)).map_or_else(|| "–".to_owned(), |n| format!("{n:.2}"));
        let kept = if bound.is_kept(own, other) { "yes" } else { "**no**" };
        let other = other.map_or_else(|| "–".to_owned(), |other| format!("{other:.1}"));
        let pattern = if *ours == "ours" { (*group).to_owned() } else { format!("{group}: {ours}") };
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "| {pattern} | {own:.1} | {allocations} | {beside} | {other} | {ratio} | {bound} | {kept} |"
        );
    }
    table
}

impl Asked {
    /// Everything this figure needs.
    fn all(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        [Some((self.group, self.ours)), self.peer].into_iter().flatten()
    }
}

impl Bound {
    fn is_kept(&self, own: f64, other: Option<f64>) -> bool {
        match (*self, other) {
            (Self::Ratio(most), Some(other)) => own <= other * most,
            (Self::Below, Some(other)) => own < other,
            (Self::Above(nanos), Some(other)) => own <= other + nanos,
            (Self::Nanos(most), _) => own <= most,
            (Self::Shown, _) => true,
            (Self::Ratio(_) | Self::Below | Self::Above(_), None) => false,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ratio(most) => write!(f, "≤ {most:.2} ×"),
            Self::Below => f.write_str("below it"),
            Self::Above(nanos) => write!(f, "≤ it + {nanos:.0} ns"),
            Self::Nanos(most) => write!(f, "≤ {most:.0} ns"),
            Self::Shown => f.write_str("to compare"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_kept_or_not() {
        assert!(Bound::Ratio(0.5).is_kept(5.0, Some(10.0)) && !Bound::Ratio(0.5).is_kept(5.1, Some(10.0)));
        assert!(Bound::Below.is_kept(9.9, Some(10.0)) && !Bound::Below.is_kept(10.0, Some(10.0)));
        assert!(Bound::Above(1.0).is_kept(11.0, Some(10.0)) && !Bound::Above(1.0).is_kept(11.1, Some(10.0)));
        assert!(Bound::Nanos(3.0).is_kept(3.0, None) && !Bound::Nanos(3.0).is_kept(3.1, None));
        assert!(!Bound::Ratio(0.5).is_kept(1.0, None), "nothing to compare it with");
        assert!(!Bound::Nanos(3.0).is_kept(f64::NAN, None), "what was not measured is not kept");
    }

    #[test]
    fn a_figure_that_falls_short_is_seen() {
        let nanos =
            |(group, name): (&str, &str)| (id(group, name), if name == "tower" { 40.0 } else { 30.0 });
        let measured = Measured {
            nanos: ASKED.iter().flat_map(Asked::all).map(nanos).collect(),
            allocations: BTreeMap::from([("timeout/ours".to_owned(), 0.0)]),
        };
        let table = table(&measured);
        assert!(
            table.contains("| timeout | 30.0 | 0.00 | tower | 40.0 | 0.75 | ≤ 0.67 × | **no** |"),
            "{table}"
        );
        assert_eq!(table.lines().count(), 2 + ASKED.len());
    }
}
