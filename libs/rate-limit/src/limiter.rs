//! The limiter: a quota, a clock, the keys, and how many share the quota.

use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::clock::{Clock as _, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue};
use stampede_deadline::{Clock, Moment};

use crate::store::BoundedStore;
use crate::{Decision, Quota, RATELIMIT, RATELIMIT_POLICY};

/// A limiter has to remember at least one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate limiter must be able to remember at least one key")]
pub struct NoKeys;

/// Counts the requests of each key against one quota. A handle: clones share what they count.
pub struct RateLimiter<K: Hash + Eq + Clone>(Arc<State<K>>);

struct State<K: Hash + Eq + Clone> {
    quota: Quota,
    policy_header: HeaderValue,
    gcra: Gcra<K>,
    replicas: AtomicU32,
}

type Gcra<K> = governor::RateLimiter<K, BoundedStore<K>, Time, StateInformationMiddleware>;

impl<K: Hash + Eq + Clone> RateLimiter<K> {
    /// A limiter that remembers at most `max_keys` keys.
    ///
    /// # Errors
    /// [`NoKeys`] when that is zero.
    pub fn try_new(quota: Quota, max_keys: usize, clock: Clock) -> Result<Self, NoKeys> {
        if max_keys == 0 {
            return Err(NoKeys);
        }
        let gcra = Gcra::new(quota.to_governor(), BoundedStore::new(max_keys), Time(clock));
        let replicas = AtomicU32::new(1);
        Ok(Self(Arc::new(State { quota, policy_header: quota.policy_header(), gcra, replicas })))
    }

    /// From now on this limiter is one of so many that share the quota, and grants its part of it.
    ///
    /// Every request then counts as many times as there are replicas, so nothing is lost or granted twice when their
    /// number changes. As long as nobody believes in fewer replicas than there are, all together grant at most the
    /// quota; while some believe in `m` of `n`, at most `n / m` times the quota. A replica grants at least one request
    /// each time its bucket is full, so there should be no more replicas than the burst allows.
    pub fn share_among(&self, replicas: NonZeroU32) {
        self.0.replicas.store(replicas.get(), Ordering::Relaxed);
    }

    /// Counts one request of `key`, unless it has used up its quota. A refused request counts nothing: who keeps
    /// knocking is not kept out for longer.
    pub fn check(&self, key: &K) -> Decision {
        self.check_weight(key, NonZeroU32::MIN)
    }

    /// Counts a request that is worth `weight` of the quota. One that is worth more than the burst needs a full bucket.
    pub fn check_weight(&self, key: &K, weight: NonZeroU32) -> Decision {
        let State { quota, gcra, replicas, .. } = &*self.0;
        let (limit, replicas) = (quota.burst(), replicas.load(Ordering::Relaxed));
        let cells = weight.get().saturating_mul(replicas).min(limit);
        match gcra.check_key_n(key, NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN)) {
            Ok(Ok(snapshot)) => {
                let cells = snapshot.remaining_burst_capacity();
                // Most doors are alone, and a division is dear.
                let (remaining, reset) = match replicas {
                    1 => (cells, quota.interval()),
                    many => (cells.checked_div(many).unwrap_or(cells), quota.interval().saturating_mul(many)),
                };
                Decision::Allowed { limit, remaining, reset }
            }
            Ok(Err(not_until)) => {
                Decision::Refused { limit, retry_after: not_until.wait_time_from(gcra.clock().now()) }
            }
            // Said of more cells than the burst, which is never asked for.
            Err(_) => Decision::Refused { limit, retry_after: quota.interval().saturating_mul(limit) },
        }
    }

    /// Writes `RateLimit-Policy`, `RateLimit` and, for a refusal, `Retry-After` into an answer's header.
    pub fn insert_headers(&self, decision: &Decision, headers: &mut HeaderMap) {
        headers.insert(RATELIMIT_POLICY, self.0.policy_header.clone());
        headers.insert(RATELIMIT, decision.header(self.0.quota.name()));
        if let Some(seconds) = decision.retry_after_header() {
            headers.insert(RETRY_AFTER, seconds);
        }
    }
}

// Derived, it would ask for `K: Clone` twice over and hide the sharing.
impl<K: Hash + Eq + Clone> Clone for RateLimiter<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Hash + Eq + Clone> fmt::Debug for RateLimiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").field("quota", &self.0.quota).finish_non_exhaustive()
    }
}

/// Our clock, as governor asks for it.
#[derive(Clone, Debug)]
struct Time(Clock);

impl governor::clock::Clock for Time {
    type Instant = Tick;

    #[inline]
    fn now(&self) -> Tick {
        Tick(self.0.now())
    }
}

/// A moment, as governor asks for it: in nanoseconds, without a detour over seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tick(Moment);

impl Add<Nanos> for Tick {
    type Output = Self;

    fn add(self, nanos: Nanos) -> Self {
        Self(Moment::from_nanos(self.0.as_nanos().saturating_add(nanos.as_u64())))
    }
}

impl Reference for Tick {
    #[inline]
    fn duration_since(&self, earlier: Self) -> Nanos {
        Nanos::new(self.0.as_nanos().saturating_sub(earlier.0.as_nanos()))
    }

    fn saturating_sub(&self, nanos: Nanos) -> Self {
        Self(Moment::from_nanos(self.0.as_nanos().saturating_sub(nanos.as_u64())))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};
    use tokio::time::{Instant, advance};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn limiter(per_second: u32, burst: u32, max_keys: usize) -> RateLimiter<u32> {
        let quota = Quota::try_new(n(per_second), n(burst)).unwrap();
        RateLimiter::try_new(quota, max_keys, Clock::tokio()).unwrap()
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

    fn n(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_weight_counts_so_many_times_and_what_is_too_heavy_needs_a_full_bucket() {
        let limiter = limiter(10, 6, 8);
        assert_eq!(remaining(limiter.check_weight(&1, n(4))), Some(2));
        let Decision::Refused { retry_after, .. } = limiter.check_weight(&1, n(4)) else {
            panic!("two are left")
        };
        assert_eq!(retry_after, 200 * MS);
        advance(200 * MS).await;
        assert_eq!(remaining(limiter.check_weight(&1, n(4))), Some(0));

        assert!(!limiter.check_weight(&1, n(100)).is_allowed());
        advance(600 * MS).await;
        assert_eq!(remaining(limiter.check_weight(&1, n(100))), Some(0));
    }

    /// What each of the replicas lets pass in so many milliseconds, when everybody knocks all the time everywhere.
    async fn passed(replicas: &[RateLimiter<u32>], millis: u32) -> u32 {
        let mut passed = 0;
        for _ in 0..millis {
            for replica in replicas {
                while replica.check(&1).is_allowed() {
                    passed += 1;
                }
            }
            advance(MS).await;
        }
        passed
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_together_grant_the_quota_and_not_more() {
        let replicas: Vec<_> = (0..4).map(|_| limiter(100, 40, 8)).collect();
        replicas.iter().for_each(|replica| replica.share_among(n(4)));
        let passed = passed(&replicas, 10_000).await;
        assert!((1_030..=1_040).contains(&passed), "{passed} of a burst of 40 and ten seconds of 100");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_know_of_a_replica_overshoots_by_its_share_and_no_more() {
        let replicas: Vec<_> = (0..3).map(|_| limiter(100, 30, 8)).collect();
        replicas.iter().for_each(|replica| replica.share_among(n(2)));
        let overshoot = passed(&replicas, 10_000).await;
        assert!(overshoot <= 1_030 * 3 / 2, "n / m of the quota: {overshoot}");
        assert!(overshoot > 1_030, "there is something to bound");

        // The third is heard of: what was taken too much is paid back, not forgotten.
        replicas.iter().for_each(|replica| replica.share_among(n(3)));
        let after = passed(&replicas, 10_000).await;
        assert!((980..=1_000).contains(&after), "{after}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_is_gone_leaves_its_share_to_the_others() {
        let replicas: Vec<_> = (0..2).map(|_| limiter(100, 20, 8)).collect();
        replicas.iter().for_each(|replica| replica.share_among(n(2)));
        passed(&replicas, 1_000).await;
        replicas[0].share_among(n(1));
        let alone = passed(&replicas[..1], 10_000).await;
        assert!((995..=1_020).contains(&alone), "{alone}");
    }

    #[tokio::test(start_paused = true)]
    async fn more_replicas_than_the_burst_still_let_somebody_in() {
        let limiter = limiter(10, 2, 8);
        limiter.share_among(n(50));
        assert!(limiter.check(&1).is_allowed());
        assert!(!limiter.check(&1).is_allowed());
        advance(200 * MS).await;
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
        assert_eq!(RateLimiter::<u32>::try_new(quota, 0, Clock::system()).err(), Some(NoKeys));
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
