//! How long calls take: a histogram that forgets, without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// So many answers are counted in one half; then the other half is emptied and takes its place.
const HALF: u64 = 512;

/// The delay is worked out anew once in so many answers.
const EVERY: u64 = 32;

/// Buckets from one power of two to the next: none is wider than an eighth of its value.
const STEPS_BITS: u32 = 3;
const STEPS: usize = 1 << STEPS_BITS;

/// Up to 2²⁶ µs, more than a minute; what takes longer counts as that.
const POWER_MAX: u32 = 26;
const BUCKETS: usize = (POWER_MAX - STEPS_BITS + 1) as usize * STEPS;

/// The last 512 to 1024 latencies, in log-linear buckets of microseconds (as HdrHistogram has them).
///
/// Threads that count while the halves change places may lose a few to the emptying. It is an estimate: nobody waits
/// for the sake of those.
pub(crate) struct Latencies {
    counted: AtomicU64,
    halves: [[AtomicU32; BUCKETS]; 2],
}

impl Latencies {
    pub fn new() -> Self {
        let half = || std::array::from_fn(|_| AtomicU32::new(0));
        Self { counted: AtomicU64::new(0), halves: [half(), half()] }
    }

    /// How many there were.
    pub fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    /// Counts one, and returns whether the quantile is to be calculated again.
    pub fn record(&self, latency: Duration) -> bool {
        let before = self.counted.fetch_add(1, Ordering::Relaxed);
        let half = &self.halves[(before / HALF) as usize % 2];
        if before.is_multiple_of(HALF) {
            half.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
        }
        half[index(latency)].fetch_add(1, Ordering::Relaxed);
        (before + 1).is_multiple_of(EVERY)
    }

    /// The upper edge of the bucket in which the quantile lies; `None` if nothing was counted.
    pub fn quantile(&self, per_mille: u32) -> Option<Duration> {
        let counts: [u64; BUCKETS] = std::array::from_fn(|n| {
            self.halves.iter().map(|half| u64::from(half[n].load(Ordering::Relaxed))).sum()
        });
        let rank = (counts.iter().sum::<u64>() * u64::from(per_mille)).div_ceil(1_000);
        let mut below = 0;
        let reached = |count: &u64| {
            below += count;
            rank > 0 && below >= rank
        };
        counts.iter().position(reached).map(upper_edge)
    }
}

/// The bucket of a latency: exact up to 7 µs, then the power of two and the three bits after its first.
fn index(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min((1 << POWER_MAX) - 1);
    if micros < STEPS as u64 {
        return micros as usize;
    }
    let shift = micros.ilog2() - STEPS_BITS;
    shift as usize * STEPS + (micros >> shift) as usize
}

fn upper_edge(index: usize) -> Duration {
    let shift = (index / STEPS).saturating_sub(1);
    let first = if index < STEPS { index } else { index % STEPS + STEPS };
    Duration::from_micros((first as u64 + 1) << shift)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn the_last_bucket_takes_whatever_is_longer() {
        assert_eq!(index(Duration::from_micros((1 << POWER_MAX) - 1)), BUCKETS - 1);
        assert_eq!(index(Duration::MAX), BUCKETS - 1);
        assert_eq!(Latencies::new().quantile(999), None);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let latencies = Latencies::new();
        fill(&latencies, 2_000, Duration::from_secs(5));
        fill(&latencies, 2 * HALF, Duration::from_micros(100));
        assert!(latencies.quantile(999).unwrap() < Duration::from_micros(120));
    }

    #[test]
    fn a_half_is_remembered_while_the_other_one_fills() {
        let latencies = Latencies::new();
        fill(&latencies, HALF, Duration::from_secs(5));
        fill(&latencies, 1, Duration::from_micros(100));
        assert!(latencies.quantile(500).unwrap() >= Duration::from_secs(5));
        fill(&latencies, HALF - 1, Duration::from_micros(100));
        assert!(latencies.quantile(500).unwrap() < Duration::from_micros(120), "half of them");
        assert!(latencies.quantile(510).unwrap() >= Duration::from_secs(5), "the other half");
    }

    fn fill(latencies: &Latencies, count: u64, latency: Duration) {
        for _ in 0..count {
            let _ = latencies.record(latency);
        }
    }

    proptest! {
        #[test]
        fn a_bucket_holds_what_is_put_into_it_and_is_narrow(micros in 0_u64..1 << POWER_MAX) {
            let edge = upper_edge(index(Duration::from_micros(micros))).as_micros() as u64;
            prop_assert!(micros < edge, "{} in the bucket below {}", micros, edge);
            prop_assert!(edge <= micros + 1 + micros / 8, "{} in the bucket below {}", micros, edge);
        }

        /// Beside a sorted list of all of them.
        #[test]
        fn a_quantile_is_above_as_many_as_it_says(mut micros in vec(0_u64..100_000, 1..HALF as usize), per_mille in 1_u32..=999) {
            let latencies = Latencies::new();
            micros.iter().for_each(|micros| fill(&latencies, 1, Duration::from_micros(*micros)));
            micros.sort_unstable();
            let rank = (micros.len() * per_mille as usize).div_ceil(1_000);
            let exact = Duration::from_micros(micros[rank - 1]);
            prop_assert_eq!(latencies.quantile(per_mille), Some(upper_edge(index(exact))));
        }
    }
}
