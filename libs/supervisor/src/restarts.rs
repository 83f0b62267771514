//! The decision after an exit, apart from everything that carries it out.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::RestartPolicy;

/// What to do with a child that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start it again after this delay.
    After(Duration),
    /// It was started again too often; let it be.
    GiveUp,
}

/// The recent restarts of one child. It is told the time and needs no runtime.
#[derive(Clone, Debug)]
pub struct Restarts {
    policy: RestartPolicy,
    /// When the recent exits happened, oldest first; never more than the policy's limit.
    exits: VecDeque<Instant>,
    /// The last failure because of an outage, and how many there were without a window between them.
    outages: Option<(Instant, u32)>,
}

impl Restarts {
    /// A child that was just started for the first time.
    pub fn new(policy: RestartPolicy) -> Self {
        Self { policy, exits: VecDeque::new(), outages: None }
    }

    /// The child ended at `now`. Times must not run backwards.
    pub fn on_exit(&mut self, now: Instant) -> Decision {
        let window = self.policy.within();
        while self.exits.front().is_some_and(|exit| now.saturating_duration_since(*exit) >= window) {
            self.exits.pop_front();
        }
        let recent = u32::try_from(self.exits.len()).unwrap_or(u32::MAX);
        if recent >= self.policy.max_restarts() {
            return Decision::GiveUp;
        }
        self.exits.push_back(now);
        Decision::After(self.policy.delay(recent))
    }

    /// The child ended at `now` because of an outage: when to start it again. This is no restart that counts, because
    /// the next process would only wait for the same outage to end.
    pub fn on_outage(&mut self, now: Instant) -> Duration {
        let window = self.policy.within();
        let recent = self.outages.filter(|(last, _)| now.saturating_duration_since(*last) < window);
        let before = recent.map_or(0, |(_, count)| count);
        self.outages = Some((now, before.saturating_add(1)));
        self.policy.delay(before)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, proptest};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn restarts() -> Restarts {
        let policy = RestartPolicy::try_new(3, 60 * SECOND, SECOND, 3 * SECOND).unwrap();
        Restarts::new(policy)
    }

    #[test]
    fn delays_double_and_then_it_gives_up() {
        let (mut restarts, now) = (restarts(), Instant::now());
        assert_eq!(restarts.on_exit(now), Decision::After(SECOND));
        assert_eq!(restarts.on_exit(now + SECOND), Decision::After(2 * SECOND));
        assert_eq!(restarts.on_exit(now + 2 * SECOND), Decision::After(3 * SECOND));
        assert_eq!(restarts.on_exit(now + 59 * SECOND), Decision::GiveUp);
    }

    #[test]
    fn what_is_older_than_the_window_is_forgiven() {
        let (mut restarts, now) = (restarts(), Instant::now());
        for second in [0, 1, 2] {
            restarts.on_exit(now + second * SECOND);
        }
        assert_eq!(restarts.on_exit(now + 60 * SECOND), Decision::After(3 * SECOND), "the first is forgiven");
        assert_eq!(restarts.on_exit(now + 200 * SECOND), Decision::After(SECOND), "all are forgiven");
    }

    #[test]
    fn a_policy_without_restarts_gives_up_at_once() {
        let policy = RestartPolicy::try_new(0, SECOND, SECOND, SECOND).unwrap();
        assert_eq!(Restarts::new(policy).on_exit(Instant::now()), Decision::GiveUp);
    }

    #[test]
    fn an_outage_is_waited_out_with_growing_delays_and_uses_up_no_restarts() {
        let (mut restarts, mut now) = (restarts(), Instant::now());
        for expected in [1, 2, 3, 3, 3, 3, 3, 3] {
            assert_eq!(restarts.on_outage(now), expected * SECOND);
            now += SECOND;
        }
        assert_eq!(restarts.on_exit(now), Decision::After(SECOND), "a defect is counted as the first");
        assert_eq!(restarts.on_outage(now + 60 * SECOND), SECOND, "another outage");
    }

    proptest! {
        /// Whatever the pauses between exits: in any window there are at most so many restarts, and it gives up only
        /// when exactly so many are behind it.
        #[test]
        fn the_intensity_is_never_exceeded(pauses in prop::collection::vec(0_u32..40, 1..60)) {
            let (mut restarts, mut now) = (restarts(), Instant::now());
            let mut granted: Vec<Instant> = Vec::new();
            for pause in pauses {
                now += pause * SECOND;
                let recent = granted.iter().filter(|at| now - **at < 60 * SECOND).count();
                match restarts.on_exit(now) {
                    Decision::After(_) => {
                        prop_assert!(recent < 3);
                        granted.push(now);
                    }
                    Decision::GiveUp => prop_assert!(recent == 3),
                }
            }
        }
    }
}
