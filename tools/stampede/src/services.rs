//! The services of the platform, as `up` sees them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// More than the longest drain of a service: by default 10 s for open requests, and 24 s for what
/// `libs/service/src/life.rs` bounds.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(40);

/// A kind of process that we build.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// Cargo's package, and its binary's name.
    pub(crate) package: &'static str,
    /// Its database and role, if it has one.
    pub(crate) database: Option<&'static str>,
    /// Whether it is a user of NATS.
    pub(crate) nats: bool,
    /// Services that must be ready before it starts. Not what it talks to: catalog and inventory wait for each
    /// other's events, and waiting for each other's readiness here would be for ever.
    pub(crate) needs: &'static [&'static str],
    /// Its listeners beside `admin`.
    pub(crate) listeners: &'static [&'static str],
}

/// All of them, each after those it needs.
pub(crate) const SERVICES: &[Service] = &[
    Service {
        name: "psp-sim",
        package: "stampede-psp-sim",
        database: Some("psp_sim"),
        nats: false,
        needs: &[],
        listeners: &["tokens", "http"],
    },
    Service {
        name: "catalog",
        package: "stampede-catalog",
        database: Some("catalog"),
        nats: true,
        needs: &[],
        listeners: &["http"],
    },
    Service {
        name: "inventory",
        package: "stampede-inventory",
        database: Some("inventory"),
        nats: true,
        needs: &[],
        listeners: &[],
    },
    Service {
        name: "notify",
        package: "stampede-notify",
        database: Some("notify"),
        nats: true,
        needs: &[],
        listeners: &[],
    },
    Service {
        name: "payments",
        package: "stampede-payments",
        database: Some("payments"),
        nats: true,
        needs: &["psp-sim"],
        listeners: &["webhook"],
    },
    Service {
        name: "lobby",
        package: "stampede-lobby",
        database: Some("lobby"),
        nats: true,
        needs: &["inventory"],
        listeners: &["http"],
    },
    Service {
        name: "orders",
        package: "stampede-orders",
        database: Some("orders"),
        nats: true,
        needs: &["inventory", "payments", "notify"],
        listeners: &["http"],
    },
    Service {
        name: "gateway",
        package: "stampede-gateway",
        database: None,
        nats: true,
        needs: &["catalog", "inventory", "lobby", "orders"],
        listeners: &["http"],
    },
];

/// Every database, in the order of the services.
pub(crate) fn databases() -> Vec<&'static str> {
    SERVICES.iter().filter_map(|service| service.database).collect()
}

/// The role that owns the schema of a database and migrates it. The role of the database's name serves.
pub(crate) fn owner(database: &str) -> String {
    format!("{database}_owner")
}

/// The wave a service starts in: the first is 0, each later one needs something of the wave before.
pub(crate) fn wave(service: &Service) -> usize {
    let needed = SERVICES.iter().filter(|other| service.needs.contains(&other.name));
    needed.map(|other| wave(other) + 1).max().unwrap_or(0)
}

/// How many processes of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replicas(BTreeMap<String, u32>);

/// More would only slow a laptop down.
const REPLICAS_MAX: u32 = 16;

impl Replicas {
    /// `orders=2,inventory=3`.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut replicas = BTreeMap::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, count) =
                part.split_once('=').with_context(|| format!("{part:?}: expected SERVICE=NUMBER"))?;
            let count: u32 = count.parse().with_context(|| format!("{part:?}: {count:?} is not a number"))?;
            ensure!((1..=REPLICAS_MAX).contains(&count), "{part:?}: between 1 and {REPLICAS_MAX}, please");
            known(name)?;
            ensure!(name != "psp-sim", "psp-sim keeps its knobs in memory, so there is one of it");
            replicas.insert(name.to_owned(), count);
        }
        Ok(Self(replicas))
    }

    pub(crate) fn of(&self, service: &Service) -> u32 {
        self.0.get(service.name).copied().unwrap_or(1)
    }

    /// Processes of services, all together.
    pub(crate) fn total(&self) -> u32 {
        SERVICES.iter().map(|service| self.of(service)).sum()
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|(name, count)| format!("{name}={count}")).collect();
        f.write_str(&parts.join(","))
    }
}

/// One setting of one service: `orders.DRAIN_TIMEOUT_MS=500`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) service: String,
    pub(crate) key: String,
    pub(crate) value: String,
}

impl Setting {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let expected = || format!("{text:?}: expected SERVICE.KEY=VALUE");
        let (place, value) = text.split_once('=').with_context(expected)?;
        let (service, key) = place.split_once('.').with_context(expected)?;
        known(service)?;
        ensure!(!key.is_empty(), expected());
        Ok(Self { service: service.to_owned(), key: key.to_owned(), value: value.to_owned() })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}={}", self.service, self.key, self.value)
    }
}

fn known(name: &str) -> anyhow::Result<()> {
    if SERVICES.iter().any(|service| service.name == name) {
        return Ok(());
    }
    let names: Vec<&str> = SERVICES.iter().map(|service| service.name).collect();
    bail!("there is no service {name:?}; there are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_comes_after_what_it_needs() {
        for (position, service) in SERVICES.iter().enumerate() {
            for need in service.needs {
                assert!(
                    SERVICES[..position].iter().any(|other| other.name == *need),
                    "{} {need}",
                    service.name
                );
            }
        }
        let wave_of = |name: &str| wave(SERVICES.iter().find(|service| service.name == name).unwrap());
        assert_eq!(
            [wave_of("catalog"), wave_of("payments"), wave_of("orders"), wave_of("gateway")],
            [0, 1, 2, 3]
        );
    }

    #[test]
    fn replicas_are_read_and_wrong_ones_explained() {
        let replicas = Replicas::parse("orders=2,inventory=3").unwrap();
        assert_eq!(replicas.total(), u32::try_from(SERVICES.len()).unwrap() + 3);
        assert_eq!(Replicas::parse(&replicas.to_string()).unwrap(), replicas);
        for (wrong, names) in [
            ("orders", "SERVICE=NUMBER"),
            ("orders=x", "x"),
            ("orders=0", "between"),
            ("order=2", "catalog"),
            ("psp-sim=2", "one"),
        ] {
            let said = format!("{:#}", Replicas::parse(wrong).unwrap_err());
            assert!(said.contains(names), "{said}");
        }
    }

    #[test]
    fn a_setting_may_hold_any_value() {
        let setting = Setting::parse("orders.RUST_LOG=info,sqlx=warn").unwrap();
        assert_eq!((setting.key.as_str(), setting.value.as_str()), ("RUST_LOG", "info,sqlx=warn"));
        assert_eq!(Setting::parse(&setting.to_string()).unwrap(), setting);
        for wrong in ["orders", "orders=1", "orders.=1", "nobody.KEY=1"] {
            assert!(Setting::parse(wrong).is_err(), "{wrong}");
        }
    }
}
