//! When a replica is ejected, for how long, and how many at a time.

use std::time::Duration;

const EJECTION_MIN: Duration = Duration::from_millis(1);

/// How outliers are treated. Checked by [`Balancer::try_new`](crate::Balancer::try_new).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// So many failures with no success between them eject a replica; at least 1.
    pub failures_max: u32,
    /// How long the first ejection lasts, at least 1 ms; the second lasts twice as long, the third three times. For
    /// every such time that a replica stays in rotation, one ejection is forgiven.
    pub ejection_first: Duration,
    /// No ejection lasts longer.
    pub ejection_max: Duration,
    /// The greatest share of replicas that are ejected at a time, 1 to 100 percent, rounded down. Of two or more one
    /// can always be ejected, and one always stays.
    pub ejected_percent_max: u32,
}

/// Settings that contradict themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// Replicas would be ejected for nothing.
    #[error("a replica is ejected after at least one failure")]
    NoFailure,
    /// The replica would get no rest.
    #[error("an ejection lasts at least one millisecond")]
    EjectionTooShort,
    /// The ejection cannot grow from one to the other.
    #[error("the first ejection must not be longer than the longest")]
    EjectionAboveMax,
    /// Not a share.
    #[error("the share that is ejected at a time must be between 1 and 100 percent")]
    Percent,
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), InvalidSettings> {
        if self.failures_max == 0 {
            Err(InvalidSettings::NoFailure)
        } else if self.ejection_first < EJECTION_MIN {
            Err(InvalidSettings::EjectionTooShort)
        } else if self.ejection_first > self.ejection_max {
            Err(InvalidSettings::EjectionAboveMax)
        } else if !(1..=100).contains(&self.ejected_percent_max) {
            Err(InvalidSettings::Percent)
        } else {
            Ok(())
        }
    }

    /// How many of so many replicas may be ejected at a time.
    pub(crate) fn ejected_max(&self, replicas: usize) -> usize {
        let share = replicas.saturating_mul(self.ejected_percent_max as usize) / 100;
        share.max(1).min(replicas.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Settings = Settings {
        failures_max: 1,
        ejection_first: EJECTION_MIN,
        ejection_max: EJECTION_MIN,
        ejected_percent_max: 1,
    };

    #[test]
    fn the_broken_rule_is_named() {
        assert_eq!(GOOD.check(), Ok(()));
        assert_eq!(Settings { ejected_percent_max: 100, ..GOOD }.check(), Ok(()));
        for (bad, rule) in [
            (Settings { failures_max: 0, ..GOOD }, InvalidSettings::NoFailure),
            (Settings { ejection_first: EJECTION_MIN / 2, ..GOOD }, InvalidSettings::EjectionTooShort),
            (Settings { ejection_first: EJECTION_MIN * 2, ..GOOD }, InvalidSettings::EjectionAboveMax),
            (Settings { ejected_percent_max: 0, ..GOOD }, InvalidSettings::Percent),
            (Settings { ejected_percent_max: 101, ..GOOD }, InvalidSettings::Percent),
        ] {
            assert_eq!(bad.check(), Err(rule), "{bad:?}");
        }
    }

    #[test]
    fn one_may_be_ejected_and_one_stays() {
        let most = |percent| {
            let settings = Settings { ejected_percent_max: percent, ..GOOD };
            [0, 1, 2, 3, 4, 10, 99].map(|replicas| settings.ejected_max(replicas))
        };
        assert_eq!(most(1), [0, 0, 1, 1, 1, 1, 1]);
        assert_eq!(most(34), [0, 0, 1, 1, 1, 3, 33]);
        assert_eq!(most(100), [0, 0, 1, 2, 3, 9, 98]);
    }
}
