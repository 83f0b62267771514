//! When buyers are due: a Poisson process, which is what many people who know nothing of each other make.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// An endless list of moments after the start.
pub struct Arrivals {
    rate: f64,
    at: f64,
    rng: SmallRng,
}

impl Arrivals {
    /// At `rate` a second; the same seed gives the same moments.
    pub fn new(rate: f64, seed: u64) -> Self {
        Self { rate, at: 0.0, rng: SmallRng::seed_from_u64(seed) }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // The gaps of a Poisson process are exponential: −ln(1 − u) / rate.
        let uniform: f64 = self.rng.random();
        self.at += -(1.0 - uniform).ln() / self.rate;
        Some(Duration::from_secs_f64(self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_on_average_and_the_seed_repeats() {
        let moments: Vec<_> = Arrivals::new(100.0, 7).take(10_000).collect();
        let seconds = moments[9_999].as_secs_f64();
        assert!((95.0..105.0).contains(&seconds), "{seconds}");
        assert!(moments.is_sorted());
        assert_eq!(moments, Arrivals::new(100.0, 7).take(10_000).collect::<Vec<_>>());
    }
}
