//! Points in time: RFC 3339 in UTC with milliseconds on every wire.

use std::{fmt, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de};
use time::{
    OffsetDateTime, UtcOffset,
    format_description::well_known::Rfc3339,
    macros::{datetime, format_description},
};

const FIRST: OffsetDateTime = datetime!(0000-01-01 00:00 UTC);
const LAST: OffsetDateTime = datetime!(9999-12-31 23:59:59.999 UTC);

/// A point in time, exact to the millisecond. Its year, in UTC, has four digits: that is what RFC 3339 can write and every
/// database can store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(OffsetDateTime);

/// The text is not an RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an RFC 3339 time such as 2027-01-31T20:00:00Z")]
pub struct InvalidTimestamp;

impl Timestamp {
    /// The wall clock, now.
    pub fn now() -> Self {
        OffsetDateTime::now_utc().into()
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_millis(self) -> i64 {
        self.0.unix_timestamp() * 1_000 + self.0.millisecond() as i64
    }

    /// From milliseconds since the Unix epoch; `None` before the year 0 and after the year 9999.
    pub fn from_unix_millis(millis: i64) -> Option<Self> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok().and_then(Self::checked)
    }

    fn checked(time: OffsetDateTime) -> Option<Self> {
        let utc = time.checked_to_offset(UtcOffset::UTC)?;
        (0..=9_999).contains(&utc.year()).then(|| utc.into())
    }

    /// What a database stores.
    pub const fn inner(self) -> OffsetDateTime {
        self.0
    }

    /// How long after `earlier`; zero if it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::try_from(self.0 - earlier.0).unwrap_or_default()
    }
}

impl From<OffsetDateTime> for Timestamp {
    // Cut to milliseconds, so that a value is equal to itself after a trip over a wire.
    fn from(time: OffsetDateTime) -> Self {
        let utc = time.to_offset(UtcOffset::UTC);
        Self(utc.replace_millisecond(utc.millisecond()).unwrap_or(utc))
    }
}

impl From<Timestamp> for OffsetDateTime {
    fn from(time: Timestamp) -> Self {
        time.0
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        let moved = self.0.saturating_add(time::Duration::try_from(span).unwrap_or(time::Duration::MAX));
        Self::checked(moved).unwrap_or(Self(LAST))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        let moved = self.0.saturating_sub(time::Duration::try_from(span).unwrap_or(time::Duration::MAX));
        Self::checked(moved).unwrap_or(Self(FIRST))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format =
            format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        f.write_str(&self.0.format(format).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        OffsetDateTime::parse(text, &Rfc3339).ok().and_then(Self::checked).ok_or(InvalidTimestamp)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl utoipa::PartialSchema for Timestamp {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .examples([serde_json::Value::from("2027-01-31T20:00:00.000Z")])
            .into()
    }
}

impl utoipa::ToSchema for Timestamp {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_equal_to_itself_after_a_trip_over_a_wire() {
        let now = Timestamp::now();
        assert_eq!(now.to_string().parse(), Ok(now));
        assert_eq!(Timestamp::from_unix_millis(now.unix_millis()), Some(now));
        assert_eq!(
            "2027-01-31T21:00:00+01:00".parse::<Timestamp>().unwrap().to_string(),
            "2027-01-31T20:00:00.000Z"
        );
    }

    #[test]
    fn what_a_database_cannot_store_is_no_time() {
        for millis in [i64::MIN, -300_000_000_000_000, -62_167_219_200_001, 253_402_300_800_000, i64::MAX] {
            assert_eq!(Timestamp::from_unix_millis(millis), None, "{millis}");
        }
        for text in ["0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59-00:01", "-0001-01-01T00:00:00Z"] {
            assert_eq!(text.parse::<Timestamp>(), Err(InvalidTimestamp), "{text}");
        }
        for time in [FIRST, LAST].map(Timestamp) {
            assert_eq!(time.to_string().parse(), Ok(time));
            assert_eq!(Timestamp::from_unix_millis(time.unix_millis()), Some(time));
        }
    }

    #[test]
    fn beyond_the_last_time_there_is_the_last_time() {
        for span in [Duration::from_millis(1), Duration::MAX] {
            assert_eq!(Timestamp(LAST) + span, Timestamp(LAST));
            assert_eq!(Timestamp(FIRST) - span, Timestamp(FIRST));
        }
    }
}
