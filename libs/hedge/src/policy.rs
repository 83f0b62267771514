//! How many attempts a call may make, and when.

use std::time::Duration;

const DELAY_MIN: Duration = Duration::from_millis(1);

/// A policy that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// Nothing would be hedged, or a slow callee would be buried.
    #[error("a hedged call makes between 2 and 10 attempts")]
    Attempts,
    /// Timers are no finer, and every call would be made twice.
    #[error("a hedge waits for at least one millisecond")]
    DelayTooShort,
    /// The delay cannot lie between them.
    #[error("the shortest delay must not be longer than the longest")]
    MinAboveMax,
    /// Not a quantile.
    #[error("a quantile lies between 1 and 999 per mille")]
    Quantile,
    /// More than are remembered, or too few to tell a quantile from chance.
    #[error("a quantile is trusted after 10 to 500 answers")]
    Samples,
}

/// How long an attempt is waited for before the next one is made beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay(pub(crate) Rule);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Fixed(Duration),
    Quantile { per_mille: u32, min: Duration, max: Duration, samples_min: u32 },
}

impl Delay {
    /// Always as long.
    ///
    /// # Errors
    /// [`InvalidPolicy::DelayTooShort`] below one millisecond.
    pub fn fixed(delay: Duration) -> Result<Self, InvalidPolicy> {
        if delay < DELAY_MIN {
            return Err(InvalidPolicy::DelayTooShort);
        }
        Ok(Self(Rule::Fixed(delay)))
    }

    /// As long as `per_mille` of the calls that had to wait took to answer, but at least `min` and at most `max`; and
    /// `max` until there were `samples_min` answers.
    ///
    /// # Errors
    /// [`InvalidPolicy`] unless 1 ≤ `per_mille` ≤ 999, 1 ms ≤ `min` ≤ `max` and 10 ≤ `samples_min` ≤ 500.
    pub fn quantile(
        per_mille: u32,
        min: Duration,
        max: Duration,
        samples_min: u32,
    ) -> Result<Self, InvalidPolicy> {
        if !(1..=999).contains(&per_mille) {
            Err(InvalidPolicy::Quantile)
        } else if min < DELAY_MIN {
            Err(InvalidPolicy::DelayTooShort)
        } else if min > max {
            Err(InvalidPolicy::MinAboveMax)
        } else if !(10..=500).contains(&samples_min) {
            Err(InvalidPolicy::Samples)
        } else {
            Ok(Self(Rule::Quantile { per_mille, min, max, samples_min }))
        }
    }

    /// Before anything was measured.
    pub(crate) fn at_first(&self) -> Duration {
        match self.0 {
            Rule::Fixed(delay) => delay,
            Rule::Quantile { max, .. } => max,
        }
    }
}

/// How calls are hedged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgePolicy {
    pub(crate) attempts_max: u32,
    pub(crate) delay: Delay,
}

impl HedgePolicy {
    /// At most `attempts_max` attempts a call, the first one counted; each a `delay` after the one before.
    ///
    /// # Errors
    /// [`InvalidPolicy::Attempts`] unless 2 ≤ `attempts_max` ≤ 10.
    pub fn try_new(attempts_max: u32, delay: Delay) -> Result<Self, InvalidPolicy> {
        if !(2..=10).contains(&attempts_max) {
            return Err(InvalidPolicy::Attempts);
        }
        Ok(Self { attempts_max, delay })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broken_rule_is_named() {
        let (short, ms) = (Duration::from_micros(999), DELAY_MIN);
        assert_eq!(Delay::fixed(short), Err(InvalidPolicy::DelayTooShort));
        assert_eq!(Delay::quantile(0, ms, ms, 10), Err(InvalidPolicy::Quantile));
        assert_eq!(Delay::quantile(1_000, ms, ms, 10), Err(InvalidPolicy::Quantile));
        assert_eq!(Delay::quantile(950, short, ms, 10), Err(InvalidPolicy::DelayTooShort));
        assert_eq!(Delay::quantile(950, 2 * ms, ms, 10), Err(InvalidPolicy::MinAboveMax));
        assert_eq!(Delay::quantile(950, ms, ms, 9), Err(InvalidPolicy::Samples));
        assert_eq!(Delay::quantile(950, ms, ms, 501), Err(InvalidPolicy::Samples));
        let delay = Delay::quantile(950, ms, ms, 500).unwrap();
        assert_eq!(HedgePolicy::try_new(1, delay), Err(InvalidPolicy::Attempts));
        assert_eq!(HedgePolicy::try_new(11, delay), Err(InvalidPolicy::Attempts));
        assert!(HedgePolicy::try_new(2, delay).is_ok());
    }
}
