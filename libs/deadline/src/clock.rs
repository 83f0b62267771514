//! The clock of patterns that measure: cheap enough to be read on every call, and told apart from the timers.

use std::ops::Add;
use std::time::Duration;

use tokio::time::Instant;

/// A point on a [`Clock`], in nanoseconds since it was made. Only moments of one clock and its clones can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// A moment so many nanoseconds after the clock was made.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock was made; what fits into one atomic word.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it was not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// Stops at the end of time, 584 years after the clock was made.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

/// A duration as it fits into one atomic word: 584 years at most.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Tells patterns what time it is. Clones go alike.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Counter { clock: quanta::Clock, zero: u64 },
    Tokio { zero: Instant },
}

impl Clock {
    /// The processor's cycle counter where it can be trusted, else the system's monotonic clock: half the price of
    /// `Instant::now`, or less.
    pub fn system() -> Self {
        let clock = quanta::Clock::new();
        let zero = clock.raw();
        Self(Source::Counter { clock, zero })
    }

    /// Tokio's clock, which stands still where a test has paused it.
    pub fn tokio() -> Self {
        Self(Source::Tokio { zero: Instant::now() })
    }

    /// What time it is.
    #[inline]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Source::Counter { clock, zero } => Moment(clock.delta_as_nanos(*zero, clock.raw())),
            Source::Tokio { zero } => Moment::default() + zero.elapsed(),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tokios_clock_stands_still_when_it_is_paused() {
        let clock = Clock::tokio();
        let (start, twin) = (clock.now(), clock.clone());
        tokio::time::advance(Duration::from_millis(1_500)).await;
        assert_eq!(clock.now().since(start), Duration::from_millis(1_500));
        assert_eq!(clock.now(), twin.now());
    }

    #[test]
    fn the_systems_clock_agrees_with_the_system() {
        let (clock, reference) = (Clock::system(), std::time::Instant::now());
        let start = clock.now();
        while reference.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let (counted, real) = (clock.now().since(start), reference.elapsed());
        assert!(counted >= Duration::from_millis(19), "{counted:?} of {real:?}");
        assert!(counted <= real + Duration::from_millis(1), "{counted:?} of {real:?}");
    }

    #[test]
    fn moments_neither_overflow_nor_run_backwards() {
        assert_eq!((Moment::from_nanos(1) + Duration::MAX).as_nanos(), u64::MAX);
        assert_eq!(Moment::from_nanos(5).since(Moment::from_nanos(9)), Duration::ZERO);
        assert_eq!(Moment::from_nanos(9).since(Moment::from_nanos(5)), Duration::from_nanos(4));
    }
}
