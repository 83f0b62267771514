//! A private Postgres: its own port, its own Unix socket, its data below the state folder. A cluster of the system, if
//! there is one, is neither used nor touched.
//!
//! Postgres refuses to run as root. When we are root it runs as an unprivileged user that the system has already
//! (see [`account`]). That user must be able to reach the data; when the state folder lies where it cannot (below
//! `/root`, say), the data lie under `/var/lib/stampede/` and `<state>/postgres` is a link to them.

mod cluster;
mod databases;
mod program;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

pub(crate) use cluster::Cluster;
pub(crate) use databases::prepare;
pub(crate) use program::Programs;

use super::account;
use crate::process::{Probe, Spec};
use crate::secrets::Secrets;
use crate::state::StateDir;

/// The role that makes databases and roles.
pub(crate) const SUPERUSER: &str = "postgres";
/// The role that reads everything and writes nothing.
pub(crate) const VERIFIER: &str = "verifier";
/// Run in the folder of the data. A segment that is there already is another server's, or was not copied whole.
const ARCHIVE: &str = "archive_command=mkdir -p ../archive && test ! -f ../archive/%f && cp %p ../archive/%f.new && mv ../archive/%f.new ../archive/%f";
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// The shortest that a path of a socket may be on the systems we know (macOS), with its end.
const SOCKET_PATH_MAX: usize = 103;

/// How a server is tuned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    pub(crate) connections_max: u32,
    /// Whether commits survive a crash of the machine. Only data that are thrown away anyway may say no.
    pub(crate) durability: Durability,
    /// Whether its log is kept for a restore to a moment.
    pub(crate) log: Log,
}

/// See [`Tuning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    Full,
    None,
}

/// See [`Tuning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    /// Only as long as a crash needs it.
    Recycled,
    /// Every segment is copied into the folder `archive` beside the data.
    Archived,
}

/// How to run a server on this cluster.
pub(crate) fn spec(
    programs: &Programs,
    cluster: &Cluster,
    state: &StateDir,
    port: u16,
    tuning: Tuning,
    secrets: &Secrets,
) -> anyhow::Result<Spec> {
    let mut args = vec!["-D".into(), cluster.data().into()];
    for setting in settings(port, socket_folder(state, port).as_deref(), tuning) {
        args.extend(["-c".into(), setting.into()]);
    }
    Ok(Spec {
        name: "postgres".to_owned(),
        kind: "postgres".to_owned(),
        program: programs.postgres(),
        args,
        env: vec![("LC_ALL".to_owned(), "C".to_owned())],
        account: cluster.account(),
        folder: PathBuf::from("/"),
        log: state.logs().join("postgres.log"),
        probe: Probe::Postgres(Box::new(superuser(port, secrets)?)),
        // "Fast": ends sessions, then writes a checkpoint. TERM would wait for every session to leave.
        stop_signal: Signal::INT,
        stop_limit: STOP_LIMIT,
        ports: BTreeMap::from([("sql".to_owned(), port)]),
    })
}

/// Small: everything together has to fit beside a browser and an editor.
fn settings(port: u16, socket_folder: Option<&Path>, tuning: Tuning) -> Vec<String> {
    let socket_folder = socket_folder.unwrap_or(Path::new("")).display();
    let mut settings = vec![
        format!("port={port}"),
        format!("max_connections={}", tuning.connections_max),
        "listen_addresses=127.0.0.1".to_owned(),
        format!("unix_socket_directories={socket_folder}"),
        "shared_buffers=48MB".to_owned(),
        // Our statements are short; compiling them takes longer than running them.
        "jit=off".to_owned(),
        "max_parallel_workers_per_gather=0".to_owned(),
        // An outbox under load leaves thousands of dead rows a minute, and every read of its front walks past them.
        "autovacuum_naptime=15s".to_owned(),
        "max_wal_size=512MB".to_owned(),
        "log_line_prefix=%m [%p] %u@%d ".to_owned(),
        "logging_collector=off".to_owned(),
    ];
    settings.extend(
        match tuning.log {
            // No standby, so the log need not carry what only a standby reads.
            Log::Recycled => vec!["wal_level=minimal", "max_wal_senders=0"],
            Log::Archived => vec!["wal_level=replica", "max_wal_senders=2", "archive_mode=on", ARCHIVE],
        }
        .into_iter()
        .map(str::to_owned),
    );
    if tuning.durability == Durability::None {
        // Commits still wait for their write: what was acknowledged lies with the system and survives a killed Postgres.
        settings.extend(["fsync=off", "full_page_writes=off"].map(str::to_owned));
    }
    settings
}

/// Where the socket of a cluster that exists lies, reached by whoever can reach the data. None where the path would be too
/// long for a socket, or the server would take it for two.
pub(crate) fn socket_folder(state: &StateDir, port: u16) -> Option<PathBuf> {
    let folder = state.postgres().canonicalize().ok()?;
    let path = folder.join(format!(".s.PGSQL.{port}"));
    let fits = path.as_os_str().len() <= SOCKET_PATH_MAX;
    let is_plain = folder.to_str().is_some_and(|folder| !folder.contains([',', '"']));
    (fits && is_plain).then_some(folder)
}

/// Connection of the superuser.
pub(crate) fn superuser(port: u16, secrets: &Secrets) -> anyhow::Result<PgConnectOptions> {
    Ok(PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .ssl_mode(PgSslMode::Disable)
        .username(SUPERUSER)
        .password(&secrets.postgres_password(SUPERUSER)?)
        .database("postgres"))
}

/// The cluster in `<state>/postgres`, made if there is none.
pub(crate) async fn cluster(
    programs: &Programs,
    state: &StateDir,
    durability: Durability,
    secrets: &Secrets,
) -> anyhow::Result<Cluster> {
    let make = cluster::Make { password: secrets.postgres_password(SUPERUSER)?, durability };
    Cluster::open(programs, account::for_postgres()?, &state.postgres(), &make).await
}

/// Whether that user can run programs from there.
fn can_run(account: Option<crate::process::Account>, folder: &Path) -> bool {
    account.is_none_or(|account| account.reaches(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_throw_away_data_may_be_unsafe() {
        let full = settings(
            21000,
            None,
            Tuning { connections_max: 120, durability: Durability::Full, log: Log::Recycled },
        );
        assert!(full.iter().any(|setting| setting == "max_connections=120"));
        assert!(!full.iter().any(|setting| setting.starts_with("fsync")));
        let none = settings(
            21000,
            None,
            Tuning { connections_max: 120, durability: Durability::None, log: Log::Recycled },
        );
        assert!(none.iter().any(|setting| setting == "fsync=off"));
        let forgets = |setting: &String| setting.starts_with("synchronous_commit");
        assert!(!none.iter().any(forgets), "a commit that was acknowledged survives SIGKILL");
    }
}
