//! What the catalog can be told beyond what every service can: nothing yet.

use stampede_service::Identity;

/// Name of the service: its database, its user, its subjects.
pub const SERVICE: &str = "catalog";
/// Who this is.
pub const IDENTITY: Identity = Identity {
    service: SERVICE,
    version: env!("CARGO_PKG_VERSION"),
    blueprint: include_str!("../blueprint.toml"),
};
/// Partitions of its outbox.
pub const OUTBOX_PARTITIONS: u16 = 4;
