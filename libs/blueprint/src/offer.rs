//! A function that a service offers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use stampede_contracts::Class;

/// A function, as its callers have to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// How it is asked.
    #[serde(with = "text")]
    pub by: Way,
    /// What asking twice does.
    pub guarantee: Guarantee,
    /// How urgent it is.
    pub class: Class,
    /// How long a caller waits who has no deadline of its own; absent for commands, which nobody waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// How a function is asked; one word and what follows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// `GET /v1/shows/{show_id}`.
    Http {
        /// The method.
        method: String,
        /// The template of the path.
        path: String,
    },
    /// `rpc hold`: request-reply over NATS, `rpc.<service>.<shard>.hold`.
    Rpc(String),
    /// `cmd.payments.authorise`: a work queue.
    Command(String),
}

/// The text names no way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `GET /path`, `rpc function` or `cmd.service.command`")]
pub struct UnknownWay;

impl FromStr for Way {
    type Err = UnknownWay;

    fn from_str(text: &str) -> Result<Self, UnknownWay> {
        let known = ["GET", "POST", "PUT", "PATCH", "DELETE"];
        match text.split_once(' ') {
            Some(("rpc", function)) if !function.is_empty() => Ok(Self::Rpc(function.to_owned())),
            Some((method, path)) if known.contains(&method) && path.starts_with('/') => {
                Ok(Self::Http { method: method.to_owned(), path: path.to_owned() })
            }
            None if text.starts_with("cmd.") => Ok(Self::Command(text.to_owned())),
            _ => Err(UnknownWay),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { method, path } => write!(f, "{method} {path}"),
            Self::Rpc(function) => write!(f, "rpc {function}"),
            Self::Command(subject) => f.write_str(subject),
        }
    }
}

/// What asking twice does; the types of the same names are in `stampede_contracts::function`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// It reads.
    Safe,
    /// The second time changes nothing more.
    Idempotent,
    /// A key makes the effect happen once.
    Keyed,
    /// Never asked again.
    Once,
}

impl Guarantee {
    /// The word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Idempotent => "idempotent",
            Self::Keyed => "keyed",
            Self::Once => "once",
        }
    }
}

/// A [`Way`] as the text it is in the file.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Way;

    pub(super) fn serialize<S: Serializer>(way: &Way, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(way)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Way, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
