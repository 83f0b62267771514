//! The two headers, the same in HTTP and NATS.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::MAX;

/// Header with the time that is left, in milliseconds, relative to the arrival of the request.
pub const HEADER: &str = "deadline-ms";

/// Header with the deadline on the sender's wall clock, in milliseconds since 1970; only beside [`HEADER`], and only
/// where a request can wait in a queue before anybody reads it.
pub const HEADER_AT: &str = "deadline-at";

/// How far two wall clocks may differ before [`is_past`] refuses something that is still in time.
pub const SKEW_TOLERANCE: Duration = Duration::from_millis(250);

/// A deadline header that is not what its definition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// [`HEADER`] holds something else than a number in its range.
    #[error("Deadline-Ms must be a whole number of milliseconds between 1 and 600000")]
    Left,
    /// [`HEADER_AT`] holds something else than a number.
    #[error("Deadline-At must be a whole number of milliseconds since 1970")]
    At,
}

/// Reads the value of [`HEADER`]: decimal digits only, 1 to 600 000 milliseconds.
///
/// # Errors
/// [`Malformed::Left`] for signs, blanks, fractions, nothing, zero, or more than [`MAX`].
pub fn parse_ms(text: &str) -> Result<Duration, Malformed> {
    let left = Duration::from_millis(digits(text).ok_or(Malformed::Left)?);
    if left.is_zero() || left > MAX { Err(Malformed::Left) } else { Ok(left) }
}

/// Whether the value of [`HEADER_AT`] lies more than [`SKEW_TOLERANCE`] before what the wall clock shows now.
///
/// # Errors
/// [`Malformed::At`] when it is not a number of milliseconds.
pub fn is_past(text: &str, wall_clock: SystemTime) -> Result<bool, Malformed> {
    let at = Duration::from_millis(digits(text).ok_or(Malformed::At)?);
    let now = wall_clock.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(at.saturating_add(SKEW_TOLERANCE) < now)
}

/// `str::parse` alone would take a leading plus sign.
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn only_digits_in_the_range_are_a_deadline() {
        assert_eq!(parse_ms("1"), Ok(Duration::from_millis(1)));
        assert_eq!(parse_ms("600000"), Ok(MAX));
        for wrong in
            ["", "0", "600001", "+5", "-5", " 5", "5 ", "5.0", "5ms", "1e3", "99999999999999999999", "٥"]
        {
            assert_eq!(parse_ms(wrong), Err(Malformed::Left), "{wrong:?}");
        }
    }

    #[test]
    fn a_wall_clock_deadline_is_past_only_beyond_the_tolerance() {
        let now = UNIX_EPOCH + Duration::from_millis(10_000);
        assert_eq!(is_past("10001", now), Ok(false));
        assert_eq!(is_past("9750", now), Ok(false));
        assert_eq!(is_past("9749", now), Ok(true));
        assert_eq!(is_past("18446744073709551615", now), Ok(false));
        assert_eq!(is_past("soon", now), Err(Malformed::At));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(millis in 1_u64..=600_000) {
            prop_assert_eq!(parse_ms(&millis.to_string()), Ok(Duration::from_millis(millis)));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse_ms(&text);
            let _ = is_past(&text, SystemTime::now());
        }
    }
}
