//! Who a process is.

/// What a process knows of itself before it is told anything: compiled into it.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// The service: the name of its folder, its database and its user.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The text of its `blueprint.toml`.
    pub blueprint: &'static str,
}
