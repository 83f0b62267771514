//! What a service keeps, and how its replicas share it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How replicas share state (F. Cesarini and S. Vinoski, "Designing for Scalability with Erlang/OTP", chapter 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Each replica has its own, and nobody else knows it: lost with the replica.
    Nothing,
    /// Replicas have copies that lag behind the truth, or parts of it: a loss costs a moment, not the data.
    Something,
    /// All replicas read and write the same truth: no loss, at the price of waiting for it.
    Everything,
}

impl Sharing {
    /// The word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Something => "something",
            Self::Everything => "everything",
        }
    }
}

/// The service's own database: how it is called, and its tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Connections by what they are for: each kind of work has its own, so that none starves another. `requests` is
    /// always there.
    pub pools: BTreeMap<String, u32>,
    /// How long work waits for a connection of its pool.
    pub wait_ms: u64,
    /// After which the server ends a statement.
    pub statement_ms: u64,
    /// After which the server ends a wait for a lock.
    pub lock_ms: u64,
    /// How the tables are shared.
    pub tables: BTreeMap<String, Sharing>,
}

/// A stream of JetStream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// The subjects it publishes there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publishes: Vec<String>,
    /// The durable consumers with which its replicas take messages, each of them once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub takes: Vec<String>,
    /// The subjects of which every replica keeps a copy of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replays: Vec<String>,
    /// How replicas share what they learn from it, or say in it.
    pub sharing: Sharing,
}

/// A key-value bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Whether it writes or reads.
    pub access: Access,
    /// How replicas share what is in it.
    pub sharing: Sharing,
}

/// What a service does with a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Puts values.
    Writes,
    /// Keeps a copy.
    Reads,
}
