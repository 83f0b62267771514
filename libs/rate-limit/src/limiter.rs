//! The limiter: a quota, a clock, and the keys.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use http::HeaderMap;
use http::header::RETRY_AFTER;
use tokio::time::Instant;

use crate::store::BoundedStore;
use crate::{Decision, Quota, RATELIMIT, RATELIMIT_POLICY};

/// A limiter has to remember at least one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate limiter must be able to remember at least one key")]
pub struct NoKeys;

/// Counts the requests of each key against one quota. Clones share what they count.
pub struct RateLimiter<K: Hash + Eq + Clone> {
    quota: Quota,
    gcra: Arc<Gcra<K>>,
}

type Gcra<K> = governor::RateLimiter<K, BoundedStore<K>, TokioClock, StateInformationMiddleware>;

impl<K: Hash + Eq + Clone> RateLimiter<K> {
    /// A limiter that remembers at most `max_keys` keys.
    ///
    /// # Errors
    /// [`NoKeys`] when that is zero.
    pub fn try_new(quota: Quota, max_keys: usize) -> Result<Self, NoKeys> {
        if max_keys == 0 {
            return Err(NoKeys);
        }
        let (store, clock) = (BoundedStore::new(max_keys), TokioClock(Instant::now()));
        Ok(Self { quota, gcra: Arc::new(Gcra::new(quota.to_governor(), store, clock)) })
    }

    /// Counts one request of `key`, unless it has used up its quota. A refused request counts nothing: who keeps
    /// knocking is not kept out for longer.
    pub fn check(&self, key: &K) -> Decision {
        let limit = self.quota.burst();
        match self.gcra.check_key(key) {
            Ok(snapshot) => {
                let remaining = snapshot.remaining_burst_capacity();
                Decision::Allowed { limit, remaining, reset: self.quota.interval() }
            }
            Err(not_until) => {
                let retry_after = not_until.wait_time_from(self.gcra.clock().now());
                Decision::Refused { limit, retry_after }
            }
        }
    }

    /// Writes `RateLimit-Policy`, `RateLimit` and, for a refusal, `Retry-After` into an answer's header.
    pub fn insert_headers(&self, decision: &Decision, headers: &mut HeaderMap) {
        headers.insert(RATELIMIT_POLICY, self.quota.policy_header());
        headers.insert(RATELIMIT, decision.header(self.quota.name()));
        if let Some(seconds) = decision.retry_after_header() {
            headers.insert(RETRY_AFTER, seconds);
        }
    }
}

// Said by hand, the sharing is plain to see.
impl<K: Hash + Eq + Clone> Clone for RateLimiter<K> {
    fn clone(&self) -> Self {
        Self { quota: self.quota, gcra: Arc::clone(&self.gcra) }
    }
}

impl<K: Hash + Eq + Clone> fmt::Debug for RateLimiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").field("quota", &self.quota).finish_non_exhaustive()
    }
}

/// Tokio's clock, as the time since the limiter was made.
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};
    use tokio::time::advance;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn limiter(per_second: u32, burst: u32, max_keys: usize) -> RateLimiter<u32> {
        let quota =
            Quota::try_new(NonZeroU32::new(per_second).unwrap(), NonZeroU32::new(burst).unwrap()).unwrap();
        RateLimiter::try_new(quota, max_keys).unwrap()
    }

    fn remaining(decision: Decision) -> Option<u32> {
        match decision {
            Decision::Allowed { remaining, .. } => Some(remaining),
            Decision::Refused { .. } => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_burst_is_counted_down_and_fills_up_again() {
        let limiter = limiter(10, 3, 8);
        let left: Vec<_> = (0..4).map(|_| remaining(limiter.check(&1))).collect();
        assert_eq!(left, [Some(2), Some(1), Some(0), None]);

        advance(100 * MS).await;
        assert_eq!(remaining(limiter.check(&1)), Some(0));
        assert_eq!(remaining(limiter.check(&1)), None);

        advance(1_000 * MS).await;
        assert_eq!(remaining(limiter.check(&1)), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_exact() {
        let limiter = limiter(4, 2, 8);
        limiter.check(&1);
        limiter.check(&1);
        advance(30 * MS).await;
        let Decision::Refused { limit, retry_after } = limiter.check(&1) else {
            panic!("the burst is used up")
        };
        assert_eq!((limit, retry_after), (2, 220 * MS));

        advance(retry_after - MS).await;
        assert!(!limiter.check(&1).is_allowed());
        advance(MS).await;
        assert!(limiter.check(&1).is_allowed());
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_apart_and_clones_are_together() {
        let limiter = limiter(1, 1, 8);
        let clone = limiter.clone();
        assert!(limiter.check(&1).is_allowed());
        assert!(!clone.check(&1).is_allowed());
        assert!(clone.check(&2).is_allowed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_new_keys_does_not_wash_out_a_busy_one() {
        let limiter = limiter(1, 5, 64);
        while limiter.check(&0).is_allowed() {}
        for stranger in 1..10_000 {
            assert!(limiter.check(&stranger).is_allowed());
        }
        assert!(!limiter.check(&0).is_allowed(), "its bucket is the emptiest, it is forgotten last");
    }

    #[tokio::test(start_paused = true)]
    async fn the_headers_follow_the_draft() {
        let limiter = limiter(1, 2, 8);
        let headers = |decision: Decision| {
            let mut headers = HeaderMap::new();
            limiter.insert_headers(&decision, &mut headers);
            headers
        };
        let allowed = headers(limiter.check(&1));
        assert_eq!(allowed["ratelimit-policy"], r#""default";q=2;w=2"#);
        assert_eq!(allowed["ratelimit"], r#""default";r=1;t=1"#);
        assert!(!allowed.contains_key("retry-after"));

        limiter.check(&1);
        let refused = headers(limiter.check(&1));
        assert_eq!(refused["ratelimit"], r#""default";r=0;t=1"#);
        assert_eq!(refused["retry-after"], "1");
    }

    #[test]
    fn at_least_one_key_is_needed() {
        let quota = Quota::try_new(NonZeroU32::MIN, NonZeroU32::MIN).unwrap();
        assert_eq!(RateLimiter::<u32>::try_new(quota, 0).err(), Some(NoKeys));
    }

    proptest! {
        /// In any stretch of time no more passes than the burst and what came back meanwhile, and whoever waits as
        /// long as the refusal says is let in.
        #[test]
        fn never_more_than_burst_and_refill(per_second in 1_u32..50, burst in 1_u32..20, pauses in prop::collection::vec(0_u32..400, 1..120)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let limiter = limiter(per_second, burst, 4);
                let mut passed: Vec<Instant> = Vec::new();
                for pause in pauses {
                    advance(pause * MS).await;
                    if let Decision::Refused { retry_after, .. } = limiter.check(&1) {
                        advance(retry_after).await;
                        prop_assert!(limiter.check(&1).is_allowed());
                    }
                    let now = Instant::now();
                    passed.push(now);
                    for (index, since) in passed.iter().enumerate() {
                        let came_back = (now - *since).as_secs_f64() * f64::from(per_second);
                        let count = f64::from(u32::try_from(passed.len() - index).unwrap());
                        prop_assert!(count <= f64::from(burst) + came_back + 1e-6);
                    }
                }
                Ok(())
            })?;
        }

        #[test]
        fn remaining_tells_how_many_may_follow(per_second in 1_u32..50, burst in 1_u32..20, used in 0_u32..20) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let limiter = limiter(per_second, burst, 4);
                for _ in 0..used.min(burst - 1) {
                    limiter.check(&1);
                }
                let promised = remaining(limiter.check(&1));
                let mut followed = 0;
                while limiter.check(&1).is_allowed() {
                    followed += 1;
                }
                prop_assert_eq!(promised, Some(followed));
                Ok(())
            })?;
        }
    }
}
