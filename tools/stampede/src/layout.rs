//! Who listens where. Decided before anything starts, since everybody is told where the others are.

use std::collections::BTreeMap;

use crate::infra;
use crate::ports::Ports;
use crate::run_file::Urls;
use crate::services::{Replicas, SERVICES, Service};

/// Where buyers expect the public API.
const GATEWAY_PORT: u16 = 8080;
/// Where buyers expect the payment provider's page for card tokens.
const TOKENS_PORT: u16 = 8081;

/// Whether the two public ports are the known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublicPorts {
    Known,
    Random,
}

/// One process of a service.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) service: &'static Service,
    /// `orders-2`
    pub(crate) name: String,
    /// By listener; `admin` is always there.
    pub(crate) ports: BTreeMap<String, u16>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) postgres: u16,
    pub(crate) nats: infra::nats::Ports,
    pub(crate) smtp: u16,
    pub(crate) control: u16,
    pub(crate) instances: Vec<Instance>,
}

impl Layout {
    pub(crate) fn plan(replicas: &Replicas, public: PublicPorts) -> anyhow::Result<Self> {
        let mut ports = Ports::default();
        let mut instances = Vec::new();
        for service in SERVICES {
            for number in 1..=replicas.of(service) {
                let mut listeners = BTreeMap::new();
                for &listener in service.listeners.iter().chain(&["admin"]) {
                    // Only one of a kind can have the known port.
                    let known =
                        known_port(service, listener).filter(|_| number == 1 && public == PublicPorts::Known);
                    let port = if let Some(port) = known { ports.fixed(port)? } else { ports.free()? };
                    listeners.insert(listener.to_owned(), port);
                }
                instances.push(Instance {
                    service,
                    name: format!("{}-{number}", service.name),
                    ports: listeners,
                });
            }
        }
        Ok(Self {
            postgres: ports.free()?,
            nats: infra::nats::Ports { client: ports.free()?, monitor: ports.free()? },
            smtp: ports.free()?,
            control: ports.free()?,
            instances,
        })
    }

    /// The port of the first process of a service.
    pub(crate) fn port(&self, service: &str, listener: &str) -> u16 {
        let first = self.instances.iter().find(|instance| instance.service.name == service);
        first.and_then(|instance| instance.ports.get(listener)).copied().unwrap_or_default()
    }

    pub(crate) fn url(&self, service: &str, listener: &str) -> String {
        local(self.port(service, listener))
    }

    pub(crate) fn urls(&self) -> Urls {
        Urls {
            gateway: self.url("gateway", "http"),
            tokens: self.url("psp-sim", "tokens"),
            psp: self.url("psp-sim", "http"),
            psp_admin: self.url("psp-sim", "admin"),
            nats: format!("nats://127.0.0.1:{}", self.nats.client),
            nats_monitor: local(self.nats.monitor),
            smtp: format!("smtp://127.0.0.1:{}", self.smtp),
            postgres: format!("127.0.0.1:{}", self.postgres),
            control: local(self.control),
        }
    }
}

fn known_port(service: &Service, listener: &str) -> Option<u16> {
    match (service.name, listener) {
        ("gateway", "http") => Some(GATEWAY_PORT),
        ("psp-sim", "tokens") => Some(TOKENS_PORT),
        _ => None,
    }
}

fn local(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listener_has_a_port_of_its_own() {
        let layout =
            Layout::plan(&Replicas::parse("gateway=2,payments=3").unwrap(), PublicPorts::Random).unwrap();
        let mut ports: Vec<u16> =
            layout.instances.iter().flat_map(|instance| instance.ports.values().copied()).collect();
        ports.extend([layout.postgres, layout.nats.client, layout.nats.monitor, layout.smtp, layout.control]);
        let count = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), count);
        assert!(layout.instances.iter().any(|instance| instance.name == "payments-3"));
        assert!(layout.instances.iter().all(|instance| instance.ports.contains_key("admin")));
        assert_eq!(layout.urls().gateway, format!("http://127.0.0.1:{}", layout.port("gateway", "http")));
    }
}
