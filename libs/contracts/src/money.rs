//! Money: integer minor units with an ISO 4217 code. Never a float.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de};
use utoipa::ToSchema;

/// An ISO 4217 code: three capital letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

/// An amount of money that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMoney {
    /// Not three capital letters.
    #[error("a currency is three capital letters such as EUR")]
    Currency,
    /// Below zero or too large for a price.
    #[error("an amount is between 0 and 100000000000 minor units")]
    Amount,
    /// Two currencies in one sum.
    #[error("amounts of two currencies do not add up")]
    Mixed,
}

impl Currency {
    /// The code.
    pub fn as_str(&self) -> &str {
        // The constructor let only ASCII letters in.
        str::from_utf8(&self.0).unwrap_or("XXX")
    }
}

impl FromStr for Currency {
    type Err = InvalidMoney;

    fn from_str(text: &str) -> Result<Self, InvalidMoney> {
        let bytes: [u8; 3] = text.as_bytes().try_into().map_err(|_| InvalidMoney::Currency)?;
        bytes.iter().all(u8::is_ascii_uppercase).then_some(Self(bytes)).ok_or(InvalidMoney::Currency)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Currency {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Currency".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[A-Z]{3}$" })
    }
}

impl utoipa::PartialSchema for Currency {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some("^[A-Z]{3}$"))
            .examples([serde_json::Value::from("EUR")])
            .into()
    }
}

impl ToSchema for Currency {}

/// An amount of money, never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(try_from = "Unchecked")]
pub struct Money {
    /// Minor units (cents), 0 to 100,000,000,000.
    #[schema(minimum = 0, maximum = 100_000_000_000i64, example = 4500)]
    amount: i64,
    /// ISO 4217 code.
    currency: Currency,
}

#[derive(Deserialize, JsonSchema)]
struct Unchecked {
    amount: i64,
    currency: Currency,
}

impl TryFrom<Unchecked> for Money {
    type Error = InvalidMoney;

    fn try_from(raw: Unchecked) -> Result<Self, InvalidMoney> {
        Self::try_new(raw.amount, raw.currency)
    }
}

impl Money {
    /// The largest amount: a thousand million of the major unit.
    pub const AMOUNT_MAX: i64 = 100_000_000_000;

    /// An amount in minor units.
    ///
    /// # Errors
    /// When the amount is negative or larger than [`Money::AMOUNT_MAX`].
    pub fn try_new(amount: i64, currency: Currency) -> Result<Self, InvalidMoney> {
        (0..=Self::AMOUNT_MAX)
            .contains(&amount)
            .then_some(Self { amount, currency })
            .ok_or(InvalidMoney::Amount)
    }

    /// Minor units.
    pub const fn amount(&self) -> i64 {
        self.amount
    }

    /// The currency.
    pub const fn currency(&self) -> Currency {
        self.currency
    }

    /// This price, `quantity` times.
    ///
    /// # Errors
    /// When the product is too large.
    pub fn times(&self, quantity: u32) -> Result<Self, InvalidMoney> {
        let amount = self.amount.checked_mul(i64::from(quantity)).ok_or(InvalidMoney::Amount)?;
        Self::try_new(amount, self.currency)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02} {}", self.amount / 100, self.amount % 100, self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_negative_amount_and_no_odd_currency_comes_in() {
        for bad in [
            r#"{"amount":-1,"currency":"EUR"}"#,
            r#"{"amount":1.5,"currency":"EUR"}"#,
            r#"{"amount":1,"currency":"eur"}"#,
            r#"{"amount":1,"currency":"EURO"}"#,
            r#"{"amount":9223372036854775807,"currency":"EUR"}"#,
        ] {
            assert!(serde_json::from_str::<Money>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_product_that_is_too_large_is_an_error() {
        let price = Money::try_new(Money::AMOUNT_MAX, "EUR".parse().unwrap()).unwrap();
        assert_eq!(price.times(2), Err(InvalidMoney::Amount));
        assert_eq!(price.times(1), Ok(price));
    }
}
