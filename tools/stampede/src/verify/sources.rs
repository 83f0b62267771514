//! Where everything is found that is compared: databases, streams, logs, mails, and what buyers were told.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::Url;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::provision::OPERATOR;
use crate::run_file::RunFile;
use crate::secrets::Secrets;
use crate::state::StateDir;

/// One for the snapshot, one to see whether things have come to rest.
const CONNECTIONS_MAX: u32 = 2;
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The largest query reads every seat that was ever held.
const STATEMENT_LIMIT: &str = "5min";
/// Sorting hundreds of thousands of journal rows in memory instead of on disk.
const SORT_MEMORY: &str = "64MB";

/// The database of every service, and the payment provider's as the independent witness.
#[derive(Clone, Debug)]
pub struct Databases {
    /// Shows and their capacity.
    pub catalog: PgPool,
    /// Seats, holds and the journal.
    pub inventory: PgPool,
    /// Places and passes.
    pub lobby: PgPool,
    /// Mails.
    pub notify: PgPool,
    /// Orders, steps and tickets.
    pub orders: PgPool,
    /// Our ledger.
    pub payments: PgPool,
    /// The provider's ledger.
    pub psp: PgPool,
}

/// Everything that is compared. What is absent is not checked, and the report says so.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The databases.
    pub databases: Databases,
    /// A connection that may read every stream.
    pub nats: Option<async_nats::Client>,
    /// Files that must not know what is personal.
    pub logs: Vec<PathBuf>,
    /// The mail sink's Maildir.
    pub mails: Option<PathBuf>,
    /// What `load` wrote down of everything that buyers were told.
    pub histories: Vec<PathBuf>,
}

impl Sources {
    /// Those of the platform that runs in a state folder, with every history that lies there.
    ///
    /// # Errors
    /// When nothing runs there, or a part of it cannot be reached.
    pub async fn of(state: &StateDir) -> Result<Self> {
        let run = RunFile::running(state)?;
        let secrets = Secrets::open(state)?;
        let databases = Databases::at(|name| run.verifier_url(name, &secrets))?;
        let nats = nats(&run.urls.nats, OPERATOR, secrets.nats_password(OPERATOR)?).await?;
        let mut logs = files(&state.logs(), |_| true)?;
        logs.extend(Some(state.output()).filter(|path| path.is_file()));
        Ok(Self {
            databases,
            nats: Some(nats),
            logs,
            mails: Some(state.mail()).filter(|folder| folder.is_dir()),
            histories: histories(state)?,
        })
    }

    /// Those of a platform that runs elsewhere, with every history that lies in the state folder. What cannot be seen
    /// from here, logs and mails, is absent.
    ///
    /// # Errors
    /// When a part of it cannot be reached.
    pub async fn elsewhere(place: &Elsewhere, state: &StateDir) -> Result<Self> {
        let databases = Databases::at(|name| {
            let mut url = Url::parse(&place.database_url).context("the URL of the databases")?;
            url.set_path(name);
            Ok(url.into())
        })?;
        let nats = nats(&place.nats_url, &place.nats_user, place.nats_password.clone()).await?;
        let histories = histories(state)?;
        Ok(Self { databases, nats: Some(nats), logs: Vec::new(), mails: None, histories })
    }
}

/// Where a platform is found that `up` does not run.
#[derive(Clone)]
pub struct Elsewhere {
    /// Postgres, as a role that may read every database; the database's name in it is replaced.
    pub database_url: String,
    /// NATS.
    pub nats_url: String,
    /// Its user that may read every stream.
    pub nats_user: String,
    /// That user's password.
    pub nats_password: String,
}

impl Databases {
    fn at(url: impl Fn(&str) -> Result<String>) -> Result<Self> {
        let database = |name: &str| pool(&url(name)?);
        Ok(Self {
            catalog: database("catalog")?,
            inventory: database("inventory")?,
            lobby: database("lobby")?,
            notify: database("notify")?,
            orders: database("orders")?,
            payments: database("payments")?,
            psp: database("psp_sim")?,
        })
    }
}

fn histories(state: &StateDir) -> Result<Vec<PathBuf>> {
    let is_history = |path: &Path| path.extension().is_some_and(|extension| extension == "jsonl");
    files(&state.root().join("history"), is_history)
}

fn pool(url: &str) -> Result<PgPool> {
    let options = PgConnectOptions::from_str(url)?
        .application_name("stampede verify")
        .options([("statement_timeout", STATEMENT_LIMIT), ("work_mem", SORT_MEMORY)]);
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(CONNECT_LIMIT);
    Ok(pool.connect_lazy_with(options))
}

async fn nats(url: &str, user: &str, password: String) -> Result<async_nats::Client> {
    async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password)
        .name("stampede verify")
        .connection_timeout(CONNECT_LIMIT)
        .connect(url)
        .await
        .with_context(|| format!("cannot connect to {url} as {user}"))
}

/// The files in a folder, in the order of their names; none when there is no such folder.
fn files(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_file() && wanted(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
