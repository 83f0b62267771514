#![doc = include_str!("../README.md")]

mod clock;
mod future;
mod header;
mod layer;
mod patience;
mod scope;
mod service;
mod timeout;

pub use clock::{Clock, Moment, nanos};
pub use future::ResponseFuture;
pub use header::{HEADER, HEADER_AT, Malformed, SKEW_TOLERANCE, is_past, parse_ms};
pub use layer::{DeadlineLayer, InvalidLimits, Refusal};
pub use patience::Patience;
pub use scope::{Elapsed, Scope, Within, current, scope, within};
pub use service::DeadlineService;
pub use timeout::{InvalidTimeout, TimedOut, Timeout, TimeoutFuture, TimeoutLayer};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The longest time a caller may ask for; also what an absurdly distant deadline shows in its header.
pub const MAX: Duration = Duration::from_secs(600);

/// The moment after which nobody waits for the answer any more.
///
/// It is a point on the monotonic clock of this process (tokio's, so that tests can pause it). What crosses a wire
/// is the time that is left, see [`Deadline::header`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline `left` from now. More than [`MAX`] is shortened to it, so that the addition cannot overflow.
    pub fn after(left: Duration) -> Self {
        Self(Instant::now() + left.min(MAX))
    }

    /// A deadline at a given moment.
    pub fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// The moment itself, for `tokio::time::timeout_at` and its like.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left; zero when the moment has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether the moment has come.
    pub fn is_expired(self) -> bool {
        self.remaining().is_zero()
    }

    /// Whichever of the two comes first.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        self.min(other)
    }

    /// The value of [`HEADER`]: whole milliseconds that are left, rounded down, between 1 and [`MAX`].
    ///
    /// The last millisecond is rounded up, because zero is no valid header. Who sends has to check
    /// [`is_expired`](Self::is_expired) or run [`within`] the deadline anyway.
    pub fn header(self) -> u64 {
        millis(self.remaining().min(MAX)).max(1)
    }

    /// The value of [`HEADER_AT`]: this deadline on the wall clock, in milliseconds since 1970, given what the wall
    /// clock shows now.
    pub fn header_at(self, wall_clock: SystemTime) -> u64 {
        let now = wall_clock.duration_since(UNIX_EPOCH).unwrap_or_default();
        millis(now + self.remaining().min(MAX))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_left_runs_down_to_zero_and_stays_there() {
        let deadline = Deadline::after(Duration::from_millis(300));
        assert_eq!(deadline.remaining(), Duration::from_millis(300));
        assert_eq!(deadline.header(), 300);

        tokio::time::advance(Duration::from_millis(299)).await;
        assert!(!deadline.is_expired());

        tokio::time::advance(Duration::from_millis(2)).await;
        assert!(deadline.is_expired());
        assert_eq!(deadline.remaining(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_header_rounds_down_but_never_to_zero() {
        assert_eq!(Deadline::after(Duration::from_micros(12_900)).header(), 12);
        assert_eq!(Deadline::after(Duration::from_micros(400)).header(), 1);
        assert_eq!(Deadline::after(Duration::ZERO).header(), 1);
        assert_eq!(Deadline::after(Duration::MAX).header(), 600_000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_is_taken() {
        let soon = Deadline::after(Duration::from_secs(1));
        let later = Deadline::after(Duration::from_secs(2));
        assert_eq!(soon.earlier(later), soon);
        assert_eq!(later.earlier(soon), soon);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wall_clock_form_adds_what_is_left() {
        let wall_clock = UNIX_EPOCH + Duration::from_millis(1_000_000);
        assert_eq!(Deadline::after(Duration::from_millis(250)).header_at(wall_clock), 1_000_250);
    }
}
