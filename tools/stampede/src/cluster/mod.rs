//! What runs in a cluster, or by compose: the secrets that its manifests name.

mod compose;
mod manifest;

use stampede_contracts::topology;

use crate::env;
use crate::infra::nats;
use crate::infra::postgres::VERIFIER;
use crate::secrets::Secrets;
use crate::services::{self, Service};

pub(crate) use compose::write;
pub(crate) use manifest::{NAMESPACE, manifests};

/// Where Postgres is within the cluster, and within compose's networks.
const POSTGRES: &str = "postgres:5432";
/// The user by whom the servers of a NATS cluster know each other.
const ROUTE: &str = "route";
/// Servers of the cluster that `k8s/overlays/ha` runs.
const NATS_SERVERS: usize = 3;

/// The secret environment of whoever migrates a service's database.
fn migrations(service: &Service, secrets: &Secrets) -> anyhow::Result<Option<Vec<(&'static str, String)>>> {
    let url = |database| database_url(&services::owner(database), database, secrets);
    Ok(service.database.map(url).transpose()?.map(|url| vec![("DATABASE_URL", url)]))
}

/// The secret environment of a service.
fn environment(service: &Service, secrets: &Secrets) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut pairs = env::secret(service, secrets)?;
    if let Some(role) = service.database {
        pairs.push(("DATABASE_URL", database_url(role, role, secrets)?));
    }
    Ok(pairs)
}

fn database_url(role: &str, database: &str, secrets: &Secrets) -> anyhow::Result<String> {
    let password = secrets.postgres_password(role)?;
    Ok(format!("postgres://{role}:{password}@{POSTGRES}/{database}?sslmode=disable"))
}

/// Everybody who has a password in Postgres.
fn roles() -> Vec<String> {
    let databases = services::databases();
    let owners = databases.iter().map(|database| services::owner(database));
    owners.chain(databases.iter().chain([&VERIFIER]).map(|role| (*role).to_owned())).collect()
}

/// How the servers of NATS find each other; only where there are several.
fn routes(secrets: &Secrets) -> anyhow::Result<String> {
    let password = secrets.nats_password(ROUTE)?;
    let route = |nth| format!("  \"nats://{ROUTE}:{password}@nats-{nth}.nats-peers:6222\"\n");
    let routes: String = (0..NATS_SERVERS).map(route).collect();
    Ok(format!(
        "authorization {{ user: \"{ROUTE}\", password: \"{password}\", timeout: 3 }}\nroutes: [\n{routes}]\n"
    ))
}

fn nats_passwords(secrets: &Secrets) -> anyhow::Result<String> {
    nats::passwords(&topology::users(), secrets)
}
