//! Pairs of measurements, one with and one without: the median of their differences, and how sure it is.

use std::fmt::Write as _;

/// One load, measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Side {
    /// CPU time of all services, user and system, in seconds.
    pub(crate) cpu: f64,
    /// Purchases that were confirmed.
    pub(crate) purchases: u64,
    /// How long the load lasted, in seconds.
    pub(crate) seconds: f64,
}

/// A load with the stack and one without, one right after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pair {
    pub(crate) on: Side,
    pub(crate) off: Side,
}

/// The median difference and an interval that holds the true one with at least 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Side {
    /// CPU milliseconds a purchase.
    fn cost(&self) -> f64 {
        self.cpu * 1_000.0 / self.purchases as f64
    }

    fn rate(&self) -> f64 {
        self.purchases as f64 / self.seconds
    }
}

impl Pair {
    /// How much more a purchase costs with the stack, in percent.
    fn difference(&self) -> f64 {
        (self.on.cost() / self.off.cost() - 1.0) * 100.0
    }
}

/// Free of any distribution: each difference is above the true median with probability one half, so the number of them
/// below it is binomial (the interval of the sign test). `None` for fewer than six pairs, which cannot be sure.
pub(crate) fn estimate(pairs: &[Pair]) -> Option<Estimate> {
    let mut differences: Vec<f64> = pairs.iter().map(Pair::difference).collect();
    differences.sort_by(f64::total_cmp);
    let count = differences.len();
    let outside = (0..count / 2).take_while(|below| tail(count, *below) <= 0.025).last()?;
    let middle = (differences.get(count / 2)?, differences.get((count - 1) / 2)?);
    Some(Estimate {
        median: (middle.0 + middle.1) / 2.0,
        low: *differences.get(outside)?,
        high: *differences.get(count - 1 - outside)?,
    })
}

/// The probability of at most `most` heads in `coins` throws.
fn tail(coins: usize, most: usize) -> f64 {
    let mut ways = 1.0;
    let mut sum = 1.0;
    for heads in 1..=most {
        ways *= (coins + 1 - heads) as f64 / heads as f64;
        sum += ways;
    }
    sum / 2.0_f64.powi(i32::try_from(coins).unwrap_or(i32::MAX))
}

/// All pairs, as a table.
pub(crate) fn table(pairs: &[Pair]) -> String {
    let mut text = String::from(
        "| pair | on, ms CPU a purchase | off | difference | on, purchases/s | off |\n|--:|--:|--:|--:|--:|--:|\n",
    );
    for (number, pair) in pairs.iter().enumerate() {
        let Pair { on, off } = pair;
        let _infallible = writeln!(
            text,
            "| {} | {:.2} | {:.2} | {:+.1} % | {:.1} | {:.1} |",
            number + 1,
            on.cost(),
            off.cost(),
            pair.difference(),
            on.rate(),
            off.rate()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(on: f64) -> Pair {
        let side = |cpu| Side { cpu, purchases: 100, seconds: 10.0 };
        Pair { on: side(on), off: side(1.0) }
    }

    #[test]
    fn the_interval_is_that_of_the_sign_test() {
        let pairs: Vec<Pair> = (1..=10).rev().map(|percent| pair(1.0 + f64::from(percent) / 100.0)).collect();
        let Estimate { median, low, high } = estimate(&pairs).unwrap();
        // Of ten the second and the ninth: 1 - 2 · 11/1024 = 97.9 %.
        for (found, expected) in [(median, 5.5), (low, 2.0), (high, 9.0)] {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
        assert_eq!(estimate(&pairs[..5]), None);
        assert!(estimate(&pairs[..6]).is_some());
    }

    #[test]
    fn a_pair_is_shown_with_cost_difference_and_rate() {
        let table = table(&[pair(1.02)]);
        assert!(table.ends_with("| 1 | 10.20 | 10.00 | +2.0 % | 10.0 | 10.0 |\n"), "{table}");
    }
}
