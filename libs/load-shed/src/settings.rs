//! What an operator may set, also while the process runs.

use std::time::Duration;

/// The most calls at a time that can be asked for; far beyond what one process serves.
const LIMIT_MAX: u32 = 1_000_000;

/// Between which bounds the limit adapts itself, in calls at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Never fewer than this. Set it so that the service stays of use.
    pub min: u32,
    /// The limit before anything was measured; later changes of it do nothing.
    pub initial: u32,
    /// Never more than this.
    pub max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min: 4, initial: 20, max: 1_000 }
    }
}

/// How requests wait when all slots are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// How long one waits in a queue that does not get empty. It is also how long a refusal takes then, plus the
    /// millisecond to which tokio rounds up its timers.
    pub target: Duration,
    /// How long a queue may stand before it counts as an overload and not as a burst; the longest anybody waits.
    /// Also how long a class is kept out after a more urgent one was shed.
    pub interval: Duration,
    /// How many may wait at a time, all classes together. Zero: nobody waits.
    pub queue_max: usize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { target: Duration::from_millis(3), interval: Duration::from_millis(100), queue_max: 64 }
    }
}

/// Settings that do not contradict each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub(crate) limits: Limits,
    pub(crate) waiting: Waiting,
}

/// The rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// Nobody would ever be served.
    #[error("the smallest limit must be at least 1")]
    MinIsZero,
    /// The limit would start outside of its bounds.
    #[error("the limits must be in the order min, initial, max")]
    LimitsOutOfOrder,
    /// More than could ever be meant.
    #[error("the largest limit must be at most 1000000")]
    MaxTooLarge,
    /// Every request that waits would be refused at once.
    #[error("the target must be at least one millisecond")]
    TargetTooShort,
    /// A standing queue would be treated better than a burst.
    #[error("the target must not be longer than the interval")]
    TargetAboveInterval,
    /// Nobody waits that long for a refusal.
    #[error("the interval must be at most ten seconds")]
    IntervalTooLong,
}

impl Settings {
    /// Puts both together.
    ///
    /// # Errors
    /// [`InvalidSettings`] unless 1 ≤ `min` ≤ `initial` ≤ `max` ≤ 1 000 000 and
    /// 1 ms ≤ `target` ≤ `interval` ≤ 10 s.
    pub fn try_new(limits: Limits, waiting: Waiting) -> Result<Self, InvalidSettings> {
        if limits.min == 0 {
            Err(InvalidSettings::MinIsZero)
        } else if limits.initial < limits.min || limits.max < limits.initial {
            Err(InvalidSettings::LimitsOutOfOrder)
        } else if limits.max > LIMIT_MAX {
            Err(InvalidSettings::MaxTooLarge)
        } else if waiting.target < Duration::from_millis(1) {
            Err(InvalidSettings::TargetTooShort)
        } else if waiting.target > waiting.interval {
            Err(InvalidSettings::TargetAboveInterval)
        } else if waiting.interval > Duration::from_secs(10) {
            Err(InvalidSettings::IntervalTooLong)
        } else {
            Ok(Self { limits, waiting })
        }
    }
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests {
    use super::*;

    fn limits(min: u32, initial: u32, max: u32) -> Result<Settings, InvalidSettings> {
        Settings::try_new(Limits { min, initial, max }, Waiting::default())
    }

    fn waiting(target_ms: u64, interval_ms: u64) -> Result<Settings, InvalidSettings> {
        let (target, interval) = (Duration::from_millis(target_ms), Duration::from_millis(interval_ms));
        Settings::try_new(Limits::default(), Waiting { target, interval, queue_max: 0 })
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        assert!(limits(1, 1, 1).is_ok());
        assert!(limits(1, 1, 1_000_000).is_ok());
        assert_eq!(limits(0, 1, 1), Err(InvalidSettings::MinIsZero));
        assert_eq!(limits(2, 1, 3), Err(InvalidSettings::LimitsOutOfOrder));
        assert_eq!(limits(1, 4, 3), Err(InvalidSettings::LimitsOutOfOrder));
        assert_eq!(limits(1, 1, 1_000_001), Err(InvalidSettings::MaxTooLarge));
        assert!(waiting(1, 1).is_ok());
        assert!(waiting(1, 10_000).is_ok());
        assert_eq!(waiting(0, 1), Err(InvalidSettings::TargetTooShort));
        assert_eq!(waiting(2, 1), Err(InvalidSettings::TargetAboveInterval));
        assert_eq!(waiting(1, 10_001), Err(InvalidSettings::IntervalTooLong));
    }

    #[test]
    fn the_defaults_keep_the_rules() {
        assert_eq!(Settings::try_new(Limits::default(), Waiting::default()), Ok(Settings::default()));
    }
}
