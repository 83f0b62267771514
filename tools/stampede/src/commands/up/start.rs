//! Starting, tier by tier: Postgres, what else we did not write, then the services in waves. A tier begins when the
//! one below has said that it is ready.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use rustix::process::Signal;
use stampede_contracts::{ShowId, Timestamp};

use super::Platform;
use super::prepare::{self, Prepared};
use crate::cargo::Binaries;
use crate::infra::postgres::{self, Durability, Log, Tuning};
use crate::infra::{nats, smtp};
use crate::layout::Instance;
use crate::process::spec::{append, rotate};
use crate::process::{Probe, Spec, probe};
use crate::seed::Api;
use crate::state::StateDir;
use crate::{env, http, progress, services};

/// Stopped last.
const TIER_POSTGRES: usize = 0;
pub(crate) const TIER_NATS: usize = 1;
/// The first wave of services.
const TIER_SERVICES: usize = 2;

const MIGRATE_LIMIT: Duration = Duration::from_secs(120);
const CONNECTIONS_MIN: u32 = 120;
/// A process's pool, its relay, its listener, and one that is just being replaced.
const CONNECTIONS_PER_PROCESS: u32 = 12;
/// For people, the verifier, and Postgres' own reserve.
const CONNECTIONS_BESIDE: u32 = 24;
const TAIL_LINES: usize = 12;

/// What can be said once everything is ready.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// A show a person can look at first.
    pub(crate) show: Option<ShowId>,
}

impl Platform {
    pub(super) async fn start(&self) -> anyhow::Result<Ready> {
        let prepared = prepare::prepare(&self.state, &self.options).await?;
        StateDir::private_folder(&self.state.logs())?;
        rotate(&self.state.logs())?;
        tokio::try_join!(
            self.start_postgres(&prepared),
            self.start_nats(&prepared),
            self.start_sink(&prepared)
        )?;
        let Some(binaries) = &prepared.binaries else { return Ok(Ready::default()) };
        let specs = self.specs(binaries)?;
        self.migrate(&specs).await?;
        self.start_services(&specs).await?;
        self.seed().await
    }

    async fn start_postgres(&self, prepared: &Prepared) -> anyhow::Result<()> {
        let began = Instant::now();
        let programs = &prepared.postgres;
        let port = self.layout.postgres;
        let durability = if self.options.throw_away { Durability::None } else { Durability::Full };
        let cluster = postgres::cluster(programs, &self.state, durability, &self.secrets).await?;
        let needed = self.options.replicas.total() * CONNECTIONS_PER_PROCESS + CONNECTIONS_BESIDE;
        let log = if self.options.archive { Log::Archived } else { Log::Recycled };
        let tuning = Tuning { connections_max: needed.max(CONNECTIONS_MIN), durability, log };
        let spec = postgres::spec(programs, &cluster, &self.state, port, tuning, &self.secrets)?;
        self.fleet.start(spec, TIER_POSTGRES);
        self.fleet.ready("postgres").await?;
        let superuser = postgres::superuser(port, &self.secrets)?;
        let made = postgres::prepare(&superuser, &services::databases(), &self.secrets).await?;
        let detail = format!("{} on 127.0.0.1:{port}, {made} new databases", programs.version());
        progress::done("postgres", detail, began);
        Ok(())
    }

    async fn start_nats(&self, prepared: &Prepared) -> anyhow::Result<()> {
        let began = Instant::now();
        let ports = self.layout.nats;
        let spec = nats::spec(&prepared.nats, &self.state, ports, &self.secrets, http::client())?;
        self.fleet.start(spec, TIER_NATS);
        self.fleet.ready("nats").await?;
        progress::done("nats", format_args!("on 127.0.0.1:{}, streams as declared", ports.client), began);
        Ok(())
    }

    async fn start_sink(&self, prepared: &Prepared) -> anyhow::Result<()> {
        let began = Instant::now();
        let port = self.layout.smtp;
        self.fleet.start(smtp::spec(&prepared.sink, &self.state, port)?, TIER_NATS);
        self.fleet.ready("smtp").await?;
        progress::done("mail sink", format_args!("on 127.0.0.1:{port}"), began);
        Ok(())
    }

    /// How to run each process of a service, by its name.
    fn specs(&self, binaries: &Binaries) -> anyhow::Result<BTreeMap<String, Spec>> {
        let spec = |instance: &Instance| Ok((instance.name.clone(), self.spec(instance, binaries)?));
        self.layout.instances.iter().map(spec).collect()
    }

    fn spec(&self, instance: &Instance, binaries: &Binaries) -> anyhow::Result<Spec> {
        let admin = instance.ports.get("admin").copied().context("no admin port")?;
        Ok(Spec {
            name: instance.name.clone(),
            kind: instance.service.name.to_owned(),
            program: binaries.program(instance.service.package),
            args: Vec::new(),
            env: env::of(instance, &self.layout, &self.state, &self.secrets, &self.options.settings)?,
            account: None,
            folder: PathBuf::from("/"),
            log: self.state.logs().join(format!("{}.log", instance.name)),
            probe: Probe::Http { client: http::client(), url: probe::readyz_url(admin) },
            stop_signal: Signal::TERM,
            stop_limit: services::STOP_LIMIT,
            ports: instance.ports.clone(),
        })
    }

    /// Every database at once; the first process of each kind does it for all.
    async fn migrate(&self, specs: &BTreeMap<String, Spec>) -> anyhow::Result<()> {
        let began = Instant::now();
        let firsts = services::SERVICES.iter().filter_map(|service| {
            let spec = specs.get(&format!("{}-1", service.name))?.clone();
            Some((service.database?, spec))
        });
        let firsts = firsts.map(|(database, spec)| {
            let owner = env::owner(database, &self.layout, &self.state, &self.secrets)?;
            Ok(Spec { env: [spec.env.clone(), owner].concat(), ..spec })
        });
        let firsts: Vec<Spec> = firsts.collect::<anyhow::Result<_>>()?;
        let migrated = try_join_all(firsts.iter().map(migrate)).await?;
        progress::done("migrated", format_args!("{} databases", migrated.len()), began);
        Ok(())
    }

    async fn start_services(&self, specs: &BTreeMap<String, Spec>) -> anyhow::Result<()> {
        let last = services::SERVICES.iter().map(services::wave).max().unwrap_or(0);
        for wave in 0..=last {
            let of_wave: Vec<&Instance> = self
                .layout
                .instances
                .iter()
                .filter(|instance| services::wave(instance.service) == wave)
                .collect();
            for spec in of_wave.iter().filter_map(|instance| specs.get(&instance.name)) {
                self.fleet.start(spec.clone(), TIER_SERVICES + wave);
            }
            try_join_all(of_wave.iter().map(|instance| self.await_ready(instance))).await?;
        }
        Ok(())
    }

    async fn await_ready(&self, instance: &Instance) -> anyhow::Result<()> {
        let began = Instant::now();
        self.fleet.ready(&instance.name).await?;
        progress::done(&instance.name, "ready", began);
        Ok(())
    }

    async fn seed(&self) -> anyhow::Result<Ready> {
        if self.options.no_seed {
            return Ok(Ready::default());
        }
        let began = Instant::now();
        let gateway = self.layout.url("gateway", "http");
        let api = Api::new(http::client(), gateway, self.secrets.operator_token()?);
        let seeded = api.seed(Timestamp::now()).await?;
        progress::done("shows", format_args!("{} new, all for sale", seeded.made), began);
        Ok(Ready { show: seeded.club })
    }
}

/// Runs a service's migrations, its output in its log.
async fn migrate(spec: &Spec) -> anyhow::Result<()> {
    let log = append(&spec.log)?;
    let mut command = spec.command(&["migrate".into()]);
    let status = command.stdout(log.try_clone()?).stderr(log).status();
    let status = tokio::time::timeout(MIGRATE_LIMIT, status)
        .await
        .with_context(|| format!("the migration of {} takes more than {MIGRATE_LIMIT:?}", spec.kind))?
        .with_context(|| format!("{} cannot be started", spec.program.display()))?;
    ensure!(status.success(), "the migration of {} failed:\n{}", spec.kind, spec.log_tail(0, TAIL_LINES));
    Ok(())
}
