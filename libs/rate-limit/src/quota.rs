//! How much each key may use.

use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderValue;

/// A quota the algorithm or the header cannot express.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuota {
    /// Two requests would be closer together than clocks and the sum of roundings can tell.
    #[error("a key may be allowed at most one request a microsecond")]
    TooFast,
    /// The bucket would take longer to fill than anybody remembers a key.
    #[error("an empty bucket must be full again after at most one day")]
    TooSlow,
}

/// A bucket of `burst` requests that fills up again steadily.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    name: &'static str,
    interval: Duration,
    burst: NonZeroU32,
}

impl Quota {
    /// `per_second` requests a second, and `burst` at once after a pause.
    ///
    /// # Errors
    /// [`InvalidQuota`] for more than a million a second, or a burst of more than a day's worth.
    pub fn try_new(per_second: NonZeroU32, burst: NonZeroU32) -> Result<Self, InvalidQuota> {
        Self::try_one_per(Duration::from_secs(1) / per_second.get(), burst)
    }

    /// One request an `interval`, for quotas below one a second, and `burst` at once after a pause.
    ///
    /// # Errors
    /// [`InvalidQuota`] for an interval below a microsecond, or a burst of more than a day's worth.
    pub fn try_one_per(interval: Duration, burst: NonZeroU32) -> Result<Self, InvalidQuota> {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);

        if interval < Duration::from_micros(1) {
            Err(InvalidQuota::TooFast)
        } else if interval.saturating_mul(burst.get()) > DAY {
            Err(InvalidQuota::TooSlow)
        } else {
            Ok(Self { name: "default", interval, burst })
        }
    }

    /// The same quota under another name than `default` in the headers, so that a client that meets several can tell
    /// them apart. `name` consists of letters, digits and hyphens.
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Its name in the headers.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The time in which one more request is allowed.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// How many requests are allowed at once after a pause.
    pub fn burst(&self) -> u32 {
        self.burst.get()
    }

    /// The value of [`RATELIMIT_POLICY`](crate::RATELIMIT_POLICY): the burst, and the whole seconds (rounded up) in
    /// which it comes back.
    pub fn policy_header(&self) -> HeaderValue {
        let window = whole_seconds(self.interval.saturating_mul(self.burst()));
        ascii(&format!("\"{}\";q={};w={window}", self.name, self.burst))
    }

    pub(crate) fn to_governor(self) -> governor::Quota {
        // Only an interval of zero has no quota, and that was refused.
        governor::Quota::with_period(self.interval)
            .unwrap_or(governor::Quota::per_second(self.burst))
            .allow_burst(self.burst)
    }
}

/// Rounded up, because who comes early is refused again, and at least one: header fields know no shorter time.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    let rounded_up = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    rounded_up.max(1)
}

/// Names, digits and punctuation always are a header value; the fall-back only keeps this free of panics.
pub(crate) fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn non_zero(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[test]
    fn the_broken_rule_is_named() {
        let try_new = |per_second, burst| Quota::try_new(non_zero(per_second), non_zero(burst));
        assert!(try_new(1_000_000, 1).is_ok());
        assert_eq!(try_new(1_000_001, 1), Err(InvalidQuota::TooFast));
        assert!(try_new(1, 86_400).is_ok());
        assert_eq!(try_new(1, 86_401), Err(InvalidQuota::TooSlow));
        assert_eq!(Quota::try_one_per(Duration::MAX, non_zero(2)), Err(InvalidQuota::TooSlow));
    }

    #[test]
    fn the_policy_names_the_burst_and_the_seconds_it_needs() {
        let policy = |per_second, burst| {
            Quota::try_new(non_zero(per_second), non_zero(burst)).unwrap().policy_header()
        };
        assert_eq!(policy(10, 20), r#""default";q=20;w=2"#);
        assert_eq!(policy(10, 25), r#""default";q=25;w=3"#);
        assert_eq!(policy(100, 5), r#""default";q=5;w=1"#);
        let five_a_minute = Quota::try_one_per(Duration::from_secs(12), non_zero(5)).unwrap();
        assert_eq!(five_a_minute.policy_header(), r#""default";q=5;w=60"#);
        assert_eq!(five_a_minute.named("address").policy_header(), r#""address";q=5;w=60"#);
    }

    #[test]
    fn seconds_are_rounded_up_and_never_zero() {
        let ceil = |millis| whole_seconds(Duration::from_millis(millis));
        assert_eq!([0, 1, 999, 1_000, 1_001, 59_500].map(ceil), [1, 1, 1, 1, 2, 60]);
    }
}
