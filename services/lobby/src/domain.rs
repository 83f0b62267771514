//! Who is admitted when. Knows no HTTP, no SQL and no clock: it is handed the time.

use std::time::Duration;

/// How many seats of a show are in which state; `None` of it means that the copy is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stock {
    /// Can be held.
    pub free: u64,
    /// Held or attached: may become free again.
    pub pending: u64,
}

/// What to do with the line of a show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Call so many of the people in front.
    Admit(u32),
    /// Nothing is left and nothing can come back: tell everybody.
    SoldOut,
}

/// The rate at which people are let in: a token bucket that holds one second's worth, so that a pause is not made
/// up for by a rush.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// People who may be let in now; fractions count.
    pub people: f64,
}

impl Allowance {
    /// What there is `elapsed` later at `rate` people a second.
    #[must_use]
    pub fn after(self, elapsed: Duration, rate: u32) -> Self {
        let rate = f64::from(rate);
        // At least one, or a rate of 1 a second looked at ten times a second would never let anybody in.
        Self { people: (self.people + elapsed.as_secs_f64() * rate).min(rate.max(1.0)) }
    }

    /// What is left after `people` were let in.
    #[must_use]
    pub fn without(self, people: u32) -> Self {
        Self { people: (self.people - f64::from(people)).max(0.0) }
    }
}

/// Decides for one show: at most what the rate allows, at most the free slots, and nobody while nothing is free but
/// something may come back.
pub fn decide(stock: Stock, allowance: Allowance, slots_free: u32) -> Decision {
    match stock {
        Stock { free: 0, pending: 0 } => Decision::SoldOut,
        Stock { free: 0, .. } => Decision::Admit(0),
        Stock { .. } => Decision::Admit(slots_free.min(allowance.people as u32)),
    }
}

/// How long it takes until `ahead` people were let in, in seconds, rounded up.
pub fn eta_seconds(ahead: u64, rate_per_second: u32) -> u64 {
    ahead.div_ceil(u64::from(rate_per_second.max(1)))
}

/// When to ask again: often in front, seldom far behind, and never so that a large crowd becomes a load by itself.
pub fn poll_after(ahead: u64, rate_per_second: u32) -> Duration {
    let wait = Duration::from_millis(ahead.saturating_mul(1_000) / u64::from(rate_per_second.max(1)));
    (wait / 4).clamp(Duration::from_millis(250), Duration::from_secs(10))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_than_the_slots_the_rate_and_one_second_of_it(
            rate in 1_u32..1_000, ticks in prop::collection::vec((0_u64..3_000, 0_u32..50), 1..100)
        ) {
            let (mut allowance, mut admitted, mut elapsed) = (Allowance { people: 0.0 }, 0_u64, Duration::ZERO);
            for (millis, slots) in ticks {
                let passed = Duration::from_millis(millis);
                elapsed += passed;
                allowance = allowance.after(passed, rate);
                let Decision::Admit(people) = decide(Stock { free: 1, pending: 0 }, allowance, slots) else { unreachable!() };
                prop_assert!(people <= slots);
                allowance = allowance.without(people);
                admitted += u64::from(people);
            }
            prop_assert!(admitted as f64 <= elapsed.as_secs_f64() * f64::from(rate) + f64::from(rate));
        }
    }

    #[test]
    fn nobody_is_called_while_the_last_seats_are_in_other_hands() {
        let plenty = Allowance { people: 10.0 };
        assert_eq!(decide(Stock { free: 0, pending: 3 }, plenty, 10), Decision::Admit(0));
        assert_eq!(decide(Stock { free: 0, pending: 0 }, plenty, 10), Decision::SoldOut);
        assert_eq!(decide(Stock { free: 1, pending: 0 }, plenty, 4), Decision::Admit(4));
    }

    #[test]
    fn a_slow_rate_still_lets_people_in() {
        let mut allowance = Allowance { people: 0.0 };
        let mut admitted = 0;
        for _ in 0..100 {
            allowance = allowance.after(Duration::from_millis(100), 1);
            if let Decision::Admit(people) = decide(Stock { free: 9, pending: 0 }, allowance, 9) {
                allowance = allowance.without(people);
                admitted += people;
            }
        }
        assert!((9..=10).contains(&admitted), "{admitted}");
    }

    #[test]
    fn who_stands_in_front_asks_often_and_who_is_far_behind_seldom() {
        assert_eq!(poll_after(0, 50), Duration::from_millis(250));
        assert_eq!(poll_after(u64::MAX, 1), Duration::from_secs(10));
        assert_eq!(eta_seconds(101, 50), 3);
    }
}
