//! What a server says about coming again: `Retry-After` (RFC 9110, 10.2.3).

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// Nobody waits that long for the same call; whoever asks for it means "not today", or nothing at all.
const SENSIBLE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// When the same request may come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// After this time at the earliest.
    Wait(Duration),
    /// Not within a day, or the field makes no sense: do not come again.
    Never,
}

/// Reads `Retry-After`, in seconds or as an HTTP date; `None` without one. A date that has passed means now.
pub fn retry_after(headers: &HeaderMap, wall_clock: SystemTime) -> Option<RetryAfter> {
    let text = headers.get(RETRY_AFTER)?.to_str().unwrap_or_default().trim();
    Some(match wait(text, wall_clock) {
        Some(wait) if wait <= SENSIBLE_MAX => RetryAfter::Wait(wait),
        _ => RetryAfter::Never,
    })
}

fn wait(text: &str, wall_clock: SystemTime) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // So many digits that they are no number are no sensible time either.
        return text.parse().ok().map(Duration::from_secs);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(wall_clock).unwrap_or_default())
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::HeaderValue;
    use proptest::prelude::{any, prop, proptest};

    use super::*;

    fn read(value: &[u8], at: u64) -> Option<RetryAfter> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_bytes(value).unwrap())]);
        retry_after(&headers, UNIX_EPOCH + Duration::from_secs(at))
    }

    fn wait(seconds: u64) -> Option<RetryAfter> {
        Some(RetryAfter::Wait(Duration::from_secs(seconds)))
    }

    #[test]
    fn seconds_and_dates_are_read() {
        assert_eq!(retry_after(&HeaderMap::new(), UNIX_EPOCH), None);
        assert_eq!(read(b"0", 0), wait(0));
        assert_eq!(read(b" 120 ", 0), wait(120));
        // The example of RFC 9110, a minute before and an hour after.
        let date = b"Fri, 31 Dec 1999 23:59:59 GMT";
        assert_eq!(read(date, 946_684_799 - 60), wait(60));
        assert_eq!(read(date, 946_684_799 + 3_600), wait(0));
    }

    #[test]
    fn what_is_absurd_means_never() {
        for absurd in ["", "-1", "+5", "1.5", "soon", "86401", "99999999999999999999999", "5, 6"] {
            assert_eq!(read(absurd.as_bytes(), 0), Some(RetryAfter::Never), "{absurd:?}");
        }
        assert_eq!(read(b"86400", 0), wait(86_400));
        assert_eq!(read(b"Fri, 31 Dec 9999 23:59:59 GMT", 0), Some(RetryAfter::Never));
        assert_eq!(read(b"\xff", 0), Some(RetryAfter::Never));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..40), at in any::<u32>()) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = HeaderMap::from_iter([(RETRY_AFTER, value)]);
                let _ = retry_after(&headers, UNIX_EPOCH + Duration::from_secs(at.into()));
            }
        }
    }
}
