//! How long to wait before the next attempt.

use std::time::Duration;

use rand::{Rng, RngExt};
use stampede_deadline::nanos;

/// A backoff that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackoff {
    /// A callee that fails at once would be called in a busy loop.
    #[error("the first delay must be at least one millisecond")]
    BaseTooShort,
    /// The delay cannot grow from one to the other.
    #[error("the first delay must not be above the longest")]
    BaseAboveMax,
}

/// Exponential back-off with full jitter: before attempt `n + 1` a random time between zero and
/// `min(max, base · 2ⁿ)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    // Half as long as durations are, and every call carries them.
    base_nanos: u64,
    max_nanos: u64,
}

impl Backoff {
    /// `base` is the ceiling of the first delay, `max` that of every one.
    ///
    /// # Errors
    /// [`InvalidBackoff`] unless 1 ms ≤ `base` ≤ `max`.
    pub fn try_new(base: Duration, max: Duration) -> Result<Self, InvalidBackoff> {
        if base < Duration::from_millis(1) {
            Err(InvalidBackoff::BaseTooShort)
        } else if base > max {
            Err(InvalidBackoff::BaseAboveMax)
        } else {
            Ok(Self { base_nanos: nanos(base), max_nanos: nanos(max) })
        }
    }

    /// The delay after `attempt`, counted from 0, has failed.
    pub fn delay(&self, attempt: u32, rng: &mut impl Rng) -> Duration {
        Duration::from_nanos(rng.random_range(0..=self.ceiling(attempt)))
    }

    fn ceiling(&self, attempt: u32) -> u64 {
        self.base_nanos.saturating_mul(2_u64.saturating_pow(attempt)).min(self.max_nanos)
    }
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_broken_rule_is_named() {
        assert_eq!(Backoff::try_new(Duration::ZERO, MS), Err(InvalidBackoff::BaseTooShort));
        assert_eq!(Backoff::try_new(2 * MS, MS), Err(InvalidBackoff::BaseAboveMax));
        assert!(Backoff::try_new(MS, MS).is_ok());
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_longest() {
        let backoff = Backoff::try_new(10 * MS, 65 * MS).unwrap();
        assert_eq!(
            [0, 1, 2, 3, 40, u32::MAX].map(|n| backoff.ceiling(n) / 1_000_000),
            [10, 20, 40, 65, 65, 65]
        );
    }

    #[test]
    fn the_jitter_is_full() {
        let backoff = Backoff::try_new(100 * MS, 100 * MS).unwrap();
        let mut rng = SmallRng::seed_from_u64(7);
        let delays: Vec<_> = (0..1_000).map(|_| backoff.delay(0, &mut rng)).collect();
        let within =
            |from: u32, to: u32| delays.iter().filter(|delay| (from * MS..to * MS).contains(*delay)).count();
        for tenth in 0..10 {
            let share = within(tenth * 10, tenth * 10 + 10);
            assert!((60..140).contains(&share), "{share} of 1000 in tenth {tenth}");
        }
    }

    proptest! {
        #[test]
        fn no_delay_is_above_its_ceiling(base in 1_u64.., extra in any::<u64>(), attempt in any::<u32>(), seed in any::<u64>()) {
            let base = Duration::from_millis(base);
            let backoff = Backoff::try_new(base, base.saturating_add(Duration::from_millis(extra))).unwrap();
            let delay = backoff.delay(attempt, &mut SmallRng::seed_from_u64(seed));
            prop_assert!(nanos(delay) <= backoff.ceiling(attempt));
            prop_assert!(backoff.ceiling(attempt) <= backoff.max_nanos);
        }
    }
}
