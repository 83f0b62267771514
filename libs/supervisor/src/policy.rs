//! How often and how fast a child may be started again.

use std::time::Duration;

/// A policy that cannot do what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// Restarts are counted in an empty span of time.
    #[error("the time in which restarts are counted must not be zero")]
    EmptyWindow,
    /// A child that crashes at once would keep a core busy.
    #[error("the shortest delay before a restart must be at least one millisecond")]
    BackoffTooShort,
    /// The delay cannot grow from one to the other.
    #[error("the shortest delay before a restart must not be above the longest")]
    BackoffReversed,
    /// The delays alone take longer than the window, so that the limit is never reached.
    #[error("{max_restarts} restarts take {delays:?} in delays alone and never happen within {within:?}")]
    LimitOutOfReach {
        /// The limit.
        max_restarts: u32,
        /// The delays before that many restarts, added up.
        delays: Duration,
        /// The window.
        within: Duration,
    },
}

/// At most so many restarts within a sliding window, each after a delay that doubles from the shortest to the
/// longest and falls back as older restarts leave the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    max_restarts: u32,
    within: Duration,
    backoff_min: Duration,
    backoff_max: Duration,
}

impl RestartPolicy {
    /// `max_restarts` may be zero: then the first exit is the last. The delays have no jitter, because the children
    /// of one process do not meet at anybody's door; what they call is protected by their own retries.
    ///
    /// # Errors
    /// [`InvalidPolicy`] names the rule that was broken.
    pub fn try_new(
        max_restarts: u32,
        within: Duration,
        backoff_min: Duration,
        backoff_max: Duration,
    ) -> Result<Self, InvalidPolicy> {
        if within.is_zero() {
            return Err(InvalidPolicy::EmptyWindow);
        }
        if backoff_min < Duration::from_millis(1) {
            return Err(InvalidPolicy::BackoffTooShort);
        }
        if backoff_min > backoff_max {
            return Err(InvalidPolicy::BackoffReversed);
        }
        let policy = Self { max_restarts, within, backoff_min, backoff_max };
        let delays = policy.delays_until_the_limit();
        if delays < within {
            Ok(policy)
        } else {
            Err(InvalidPolicy::LimitOutOfReach { max_restarts, delays, within })
        }
    }

    /// The delay before the next restart, when `recent` restarts lie in the window.
    pub(crate) fn delay(&self, recent: u32) -> Duration {
        self.backoff_min.saturating_mul(2_u32.saturating_pow(recent)).min(self.backoff_max)
    }

    pub(crate) fn max_restarts(&self) -> u32 {
        self.max_restarts
    }

    pub(crate) fn within(&self) -> Duration {
        self.within
    }

    fn delays_until_the_limit(&self) -> Duration {
        // Doubling reaches any longest delay within 64 steps; the rest are all alike.
        let doubling = self.max_restarts.min(64);
        let growing =
            (0..doubling).map(|recent| self.delay(recent)).fold(Duration::ZERO, Duration::saturating_add);
        growing.saturating_add(self.backoff_max.saturating_mul(self.max_restarts - doubling))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(max_restarts: u32, within: u64, min: u64, max: u64) -> Result<RestartPolicy, InvalidPolicy> {
        let [within, min, max] = [within, min, max].map(Duration::from_millis);
        RestartPolicy::try_new(max_restarts, within, min, max)
    }

    #[test]
    fn the_broken_rule_is_named() {
        assert_eq!(policy(1, 0, 1, 1), Err(InvalidPolicy::EmptyWindow));
        assert_eq!(policy(1, 100, 0, 1), Err(InvalidPolicy::BackoffTooShort));
        assert_eq!(policy(1, 100, 2, 1), Err(InvalidPolicy::BackoffReversed));
        assert!(policy(0, 1, 1, 1).is_ok());
    }

    #[test]
    fn a_limit_the_delays_keep_out_of_reach_is_refused() {
        // 10 + 20 + 40 + 40 + 40
        assert!(policy(5, 151, 10, 40).is_ok());
        assert!(matches!(policy(5, 150, 10, 40), Err(InvalidPolicy::LimitOutOfReach { .. })));
        assert!(matches!(policy(u32::MAX, 1_000, 1, 1), Err(InvalidPolicy::LimitOutOfReach { .. })));
    }

    #[test]
    fn the_delay_doubles_up_to_the_longest_and_does_not_overflow() {
        let policy = policy(5, 1_000, 10, 50).unwrap();
        assert_eq!([0, 1, 2, 3, 400].map(|n| policy.delay(n).as_millis()), [10, 20, 40, 50, 50]);
    }
}
