//! What a node says once a second: that it lives, where, and whether it takes work.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// One heartbeat on `oam.heartbeat.<service>.<instance>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Name of the service.
    pub service: String,
    /// Name of this process among its replicas.
    pub instance: String,
    /// Version of the binary.
    pub version: String,
    /// `host:port` of its HTTP listener, if it has one.
    pub address: Option<String>,
    /// `host:port` of its admin listener.
    pub admin: String,
    /// Whether it takes work: false while starting and draining.
    pub ready: bool,
    /// When the process started.
    pub started_at: Timestamp,
}

impl Heartbeat {
    /// Where it is published.
    pub fn subject(&self) -> String {
        format!("oam.heartbeat.{}.{}", self.service, self.instance)
    }
}
