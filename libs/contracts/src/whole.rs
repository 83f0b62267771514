//! Whole numbers as JSON has them: `2.0` is an integer (JSON Schema, 6.1.1), and some languages write no other.

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserializer, de};

/// Above this a float no longer holds every whole number.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// For `#[serde(deserialize_with)]`.
///
/// # Errors
/// Those of the format, and a number that has a fraction or does not fit into `N`.
pub fn deserialize<'de, D: Deserializer<'de>, N: TryFrom<i64>>(deserializer: D) -> Result<N, D::Error> {
    deserializer.deserialize_any(Whole(PhantomData))
}

/// The same for a field that may be absent or null.
///
/// # Errors
/// See [`deserialize`].
pub fn optional<'de, D: Deserializer<'de>, N: TryFrom<i64>>(deserializer: D) -> Result<Option<N>, D::Error> {
    deserializer.deserialize_option(Optional(PhantomData))
}

struct Whole<N>(PhantomData<N>);

impl<N: TryFrom<i64>> de::Visitor<'_> for Whole<N> {
    type Value = N;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number in its range")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<N, E> {
        N::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<N, E> {
        let whole =
            i64::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))?;
        self.visit_i64(whole)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<N, E> {
        if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
            return self.visit_i64(number as i64);
        }
        Err(E::invalid_value(de::Unexpected::Float(number), &self))
    }
}

struct Optional<N>(PhantomData<N>);

impl<'de, N: TryFrom<i64>> de::Visitor<'de> for Optional<N> {
    type Value = Option<N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number in its range, or nothing")
    }

    fn visit_none<E: de::Error>(self) -> Result<Option<N>, E> {
        Ok(None)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<N>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<N>, D::Error> {
        deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::from_str;

    use crate::api::NewHold;
    use crate::event::Row;

    #[test]
    fn a_float_without_a_fraction_is_a_whole_number() {
        let seats =
            |text: &str| from_str::<Row>(&format!(r#"{{"label":"A","seats":{text}}}"#)).map(|row| row.seats);
        for two in ["2", "2.0", "2e0", "0.2e1"] {
            assert_eq!(seats(two).unwrap(), 2, "{two}");
        }
        for wrong in ["2.5", "-1", "4294967296", "1e300", "\"2\"", "null", "18446744073709551615"] {
            assert!(seats(wrong).is_err(), "{wrong}");
        }
        let quantity = |text: &str| from_str::<NewHold>(text).map(|hold| hold.quantity);
        assert_eq!(quantity(r#"{"quantity":2.0}"#).unwrap(), Some(2));
        assert_eq!((quantity("{}").unwrap(), quantity(r#"{"quantity":null}"#).unwrap()), (None, None));
    }
}
