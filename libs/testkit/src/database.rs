//! A Postgres database for one test.

use std::env;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use stampede_postgres::PgPool;

const POSTGRES: &str = "STAMPEDE_TEST_POSTGRES";
const MAX_CONNECTIONS: u32 = 8;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(60);
const DROP_TIMEOUT: Duration = Duration::from_secs(5);
/// Postgres cuts names after 63 bytes; with prefix and random part this leaves room.
const HINT_MAX_CHARS: usize = 20;

/// The URL of the server on which tests make their databases.
///
/// # Panics
/// When the environment does not name one.
#[track_caller]
pub fn postgres_url() -> String {
    match env::var(POSTGRES) {
        Ok(url) if !url.is_empty() => url,
        _ => super::fail(&format!(
            "{POSTGRES} is not set: run the tests with `cargo stampede test`, or point it at a Postgres server \
             whose user may create databases, such as postgres://postgres@127.0.0.1:5432/postgres"
        )),
    }
}

/// A database with a random name, dropped together with this value. It can be used like its pool.
#[derive(Debug)]
pub struct Database {
    server: PgConnectOptions,
    name: String,
    pool: PgPool,
}

/// Makes a database and brings it to the newest schema of `migrator`. `hint` goes into its name, for whoever looks at
/// a server while tests run.
///
/// # Panics
/// When there is no server, or a migration fails.
pub async fn fresh_database(hint: &str, migrator: &Migrator) -> Database {
    let database = match Database::create(hint).await {
        Ok(database) => database,
        Err(error) => super::fail(&format!("cannot make a database on {POSTGRES}: {error}")),
    };
    if let Err(error) = database.migrate(migrator).await {
        super::fail(&format!("migrations failed: {error}"));
    }
    database
}

impl Database {
    async fn create(hint: &str) -> Result<Self, sqlx::Error> {
        let server = PgConnectOptions::from_str(&postgres_url())?;
        let word: String = hint.chars().filter(char::is_ascii_alphanumeric).take(HINT_MAX_CHARS).collect();
        let name = format!("test_{}_{}", word.to_ascii_lowercase(), uuid::Uuid::new_v4().simple());

        let mut connection = server.connect().await?;
        connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
        connection.close().await?;

        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(server.clone().database(&name))
            .await?;
        Ok(Self { server, name, pool: PgPool::new(pool, ACQUIRE_TIMEOUT) })
    }

    async fn migrate(&self, migrator: &Migrator) -> Result<(), sqlx::migrate::MigrateError> {
        let mut connection = self.pool.connect_options().connect().await?;
        migrator.run_direct(None, &mut connection, false).await?;
        Ok(connection.close().await?)
    }

    /// Lets nobody in any more and ends all sessions, as an operator does before a restore. It lets them in again with
    /// [`open`](Self::open).
    ///
    /// # Panics
    /// When the server does not do it.
    pub async fn shut(&self) {
        self.tell_server(format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", self.name)).await;
        self.end_sessions().await;
    }

    /// Lets everybody in again.
    ///
    /// # Panics
    /// When the server does not do it.
    pub async fn open(&self) {
        self.tell_server(format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.name)).await;
    }

    /// New sessions can write or not. The present ones end, as in a failover.
    ///
    /// # Panics
    /// When the server does not do it.
    pub async fn set_read_only(&self, on: &str) {
        self.tell_server(format!("ALTER DATABASE {} SET default_transaction_read_only = {on}", self.name))
            .await;
        self.end_sessions().await;
    }

    async fn end_sessions(&self) {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname";
        self.tell_server(format!("{end} = '{}'", self.name)).await;
    }

    async fn tell_server(&self, sql: String) {
        let told = async {
            let mut connection = self.server.connect().await?;
            connection.execute(AssertSqlSafe(sql)).await?;
            connection.close().await
        };
        if let Err(error) = told.await {
            super::fail(&format!("the server does not change the database: {error}"));
        }
    }

    /// A pool of connections to it.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Its URL, for a service that opens its own pool.
    pub fn url(&self) -> String {
        self.server.clone().database(&self.name).to_url_lossy().to_string()
    }
}

impl Deref for Database {
    type Target = PgPool;

    fn deref(&self) -> &PgPool {
        &self.pool
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // The test's own runtime may be on its way out, so the last words are spoken from a thread with its own.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let work = async {
                    let mut connection = server.connect().await?;
                    // FORCE ends the connections of pools that are still open.
                    connection.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await?;
                    connection.close().await
                };
                tokio::time::timeout(DROP_TIMEOUT, work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
            })
        });
        match dropping.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("database {} stays behind: {error}", self.name),
            Err(_) => eprintln!("database {} stays behind", self.name),
        }
    }
}
