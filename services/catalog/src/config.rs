//! What the catalog can be told beyond what every service can: nothing yet.

/// Name of the service: its database, its user, its subjects.
pub const SERVICE: &str = "catalog";
/// Partitions of its outbox.
pub const OUTBOX_PARTITIONS: u16 = 4;
