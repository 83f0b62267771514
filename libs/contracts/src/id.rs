//! Ids: UUIDv7 with a type prefix where an id only names, random where holding it is a right.
//!
//! Seats and holds carry the block they lie in, so that any node finds the shard without asking;
//! they never carry the shard, which may move.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de};
use utoipa::ToSchema;
use uuid::Uuid;

/// The text is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an id of the form {expected}")]
pub struct InvalidId {
    expected: &'static str,
}

/// Serde and `Debug` by way of `Display` and `FromStr`: on a wire every id is a string.
macro_rules! as_string {
    ($name:ident, $pattern:expr, $example:expr) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some($pattern))
                    .examples([serde_json::Value::from($example)])
                    .into()
            }
        }

        impl ToSchema for $name {}
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $new:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id.
            #[expect(clippy::new_without_default, reason = "a default id would be a new one each time")]
            pub fn new() -> Self {
                Self(Uuid::$new())
            }

            /// The id of a stored value.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// What a database stores.
            pub const fn uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = InvalidId { expected: concat!($prefix, "_<32 hexadecimal digits>") };
                let hex = text.strip_prefix(concat!($prefix, "_")).ok_or(invalid.clone())?;
                parse_hex(hex).map(Self).ok_or(invalid)
            }
        }

        as_string!($name, concat!("^", $prefix, "_[0-9a-f]{32}$"), concat!($prefix, "_0192f0c1a2b37c4d8e5f60718293a4b5"));
    };
}

// One spelling only: 32 lower-case digits. Two spellings of one id would be two cache keys.
fn parse_hex(hex: &str) -> Option<Uuid> {
    let canonical = hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| Uuid::try_parse(hex).ok()).flatten()
}

uuid_id!(
    /// A show: one performance at one venue.
    ShowId, "shw", now_v7
);
uuid_id!(
    /// A venue.
    VenueId, "ven", now_v7
);
uuid_id!(
    /// A section of a show, with one price.
    SectionId, "sec", now_v7
);
uuid_id!(
    /// A client's session. The signed token proves it; the id alone is worth nothing at the public door.
    SessionId, "ses", now_v7
);
uuid_id!(
    /// An order.
    OrderId, "ord", now_v7
);
uuid_id!(
    /// A ticket.
    TicketId, "tkt", now_v7
);
uuid_id!(
    /// One step of an order's saga; at the same time the key under which the step happens once.
    StepId, "stp", now_v7
);
uuid_id!(
    /// A place in a lobby. Random, because who holds it may read and leave the place.
    LobbyTicket, "lby", new_v4
);
uuid_id!(
    /// A shopping slot given by a lobby.
    PassId, "pas", now_v7
);

/// A block: at most 1,000 seats or places of one section, the unit that is locked, moved and published.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(i64);

impl BlockId {
    /// The block with this number.
    pub const fn from_number(number: i64) -> Self {
        Self(number)
    }

    /// What a database stores.
    pub const fn number(&self) -> i64 {
        self.0
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}

impl FromStr for BlockId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits = text.strip_prefix('b').and_then(canonical_number::<i64>);
        digits.map(Self).ok_or(InvalidId { expected: "b<number>" })
    }
}

as_string!(BlockId, "^b[1-9][0-9]*$", "b1042");

// Digits without sign or leading zero, so that one number has one spelling.
fn canonical_number<N: FromStr>(digits: &str) -> Option<N> {
    let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    canonical.then(|| digits.parse().ok()).flatten()
}

/// A seat: its block and its index there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeatId {
    /// The block the seat lies in.
    pub block: BlockId,
    /// The seat's index in the block, from 0.
    pub index: u16,
}

impl fmt::Display for SeatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.block, self.index)
    }
}

impl FromStr for SeatId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId { expected: "b<number>-<number>" };
        let (block, index) = text.split_once('-').ok_or(invalid.clone())?;
        let block = block.parse()?;
        let index = canonical_number(index).ok_or(invalid)?;
        Ok(Self { block, index })
    }
}

as_string!(SeatId, "^b[1-9][0-9]{0,17}-(0|[1-9][0-9]{0,3})$", "b1042-17");

/// A hold on seats of one block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldId {
    block: BlockId,
    random: Uuid,
}

impl HoldId {
    /// A new hold in a block.
    pub fn new(block: BlockId) -> Self {
        Self { block, random: Uuid::new_v4() }
    }

    /// The hold as stored.
    pub const fn from_parts(block: BlockId, random: Uuid) -> Self {
        Self { block, random }
    }

    /// The block the held seats lie in.
    pub const fn block(&self) -> BlockId {
        self.block
    }

    /// The random part, unique by itself: what a database stores.
    pub const fn uuid(&self) -> Uuid {
        self.random
    }
}

impl fmt::Display for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hld_{}_{}", self.block, self.random.simple())
    }
}

impl FromStr for HoldId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId { expected: "hld_b<number>_<32 hexadecimal digits>" };
        let rest = text.strip_prefix("hld_").ok_or(invalid.clone())?;
        let (block, random) = rest.split_once('_').ok_or(invalid.clone())?;
        let block = block.parse().map_err(|_| invalid.clone())?;
        Ok(Self { block, random: parse_hex(random).ok_or(invalid)? })
    }
}

as_string!(HoldId, "^hld_b[1-9][0-9]{0,17}_[0-9a-f]{32}$", "hld_b1042_5f60718293a4b50192f0c1a2b37c4d8e");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        let order = OrderId::new();
        assert_eq!(order.to_string().parse(), Ok(order));
        let hold = HoldId::new(BlockId::from_number(7));
        assert_eq!(hold.to_string().parse(), Ok(hold));
        let seat = SeatId { block: BlockId::from_number(7), index: 999 };
        assert_eq!(seat.to_string().parse(), Ok(seat));
    }

    #[test]
    fn only_the_canonical_spelling_is_an_id() {
        let order = OrderId::new().to_string();
        for bad in
            ["", "ord_", "ord_zz", &order.to_uppercase(), &order.replace("ord", "shw"), &format!("{order}0")]
        {
            assert!(bad.parse::<OrderId>().is_err(), "{bad}");
        }
        for bad in ["b-1", "b+1", "b01", "b", "1", "b99999999999999999999"] {
            assert!(bad.parse::<BlockId>().is_err(), "{bad}");
        }
        for bad in ["b1", "b1-", "b1--1", "b1-+1", "b1-01", "b1-70000"] {
            assert!(bad.parse::<SeatId>().is_err(), "{bad}");
        }
    }
}
