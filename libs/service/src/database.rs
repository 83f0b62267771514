//! The service's own database: a pool that waits for it, and a schema that fits.

use std::io;
use std::time::Duration;

use opentelemetry::KeyValue;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use stampede_blueprint::Database;
use stampede_postgres::{Failure, Limits, PgPool, is_outage};
use tokio::time::{Instant, sleep, timeout};

use crate::env::EnvError;
use crate::{Error, Settings};

/// An idle transaction holds locks; a program that forgot one is ended by the server.
const IDLE_IN_TRANSACTION_MAX: Duration = Duration::from_secs(10);
/// How long a migration waits for a lock before it gives way to the traffic. Everybody who wants the table waits behind it
/// so long, which has to be less than their own limit.
const MIGRATION_LOCK_TIMEOUT: Duration = Duration::from_millis(500);
/// When the server asks a silent client for a sign of life, how often, and how many may be missing; and how long what it
/// sends may stay without an acknowledgement.
const KEEPALIVE_IDLE_S: u32 = 10;
const KEEPALIVE_INTERVAL_S: u32 = 5;
const KEEPALIVE_COUNT: u32 = 3;
const USER_TIMEOUT_MS: u32 = 20_000;
/// How long all migrations together may take.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(600);
/// Pauses between two attempts to reach the database, or looks at its schema.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The pool that answers requests; every blueprint with a database has it.
pub(crate) const REQUESTS: &str = "requests";

/// A pool of the blueprint. It connects when it is used.
pub(crate) fn open(settings: &Settings, policy: &Database, name: &str) -> Result<PgPool, Error> {
    let replaced = settings.database.connections.filter(|_| name == REQUESTS);
    let connections = replaced.or_else(|| policy.pools.get(name).copied());
    let connections = connections.ok_or_else(|| Error::NoPool { pool: name.to_owned() })?;
    let limits = Limits {
        connections,
        wait: wait(settings, policy),
        statement: Duration::from_millis(statement_ms(settings, policy)),
    };
    let pool = PgPool::connect_lazy_with(limits, pool_options(settings, policy)?);
    observe(&pool, name);
    Ok(pool)
}

fn wait(settings: &Settings, policy: &Database) -> Duration {
    Duration::from_millis(settings.database.wait_ms.unwrap_or(policy.wait_ms))
}

fn statement_ms(settings: &Settings, policy: &Database) -> u64 {
    settings.database.statement_ms.unwrap_or(policy.statement_ms)
}

/// Tries until a connection stands. Not through the pool, which would only say that it timed out, and not why.
pub(crate) async fn wait_for(settings: &Settings, policy: &Database) -> Result<(), Error> {
    let options = pool_options(settings, policy)?;
    let give_up = Instant::now() + settings.startup_timeout;
    let mut pause = PAUSE_MIN;
    loop {
        // Closing is a part of it, because it waits for the server as well.
        let attempt = async { options.connect().await?.close().await };
        let attempt = timeout(wait(settings, policy), attempt).await;
        let Err(error) = attempt.unwrap_or(Err(sqlx::Error::PoolTimedOut)) else { return Ok(()) };
        if is_final(&error, settings) || Instant::now() + pause > give_up {
            return Err(error.into());
        }
        tracing::warn!(%error, ?pause, "the database cannot be reached yet");
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Sees to it that the schema has all of `migrator`: runs what is missing on a laptop, where its role may, and else waits
/// for `migrate`, because a replica that serves has no right to change tables.
pub(crate) async fn ensure_schema(
    pool: &PgPool,
    migrator: &Migrator,
    settings: &Settings,
) -> Result<(), Error> {
    let started = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        let is_late = started.elapsed() > settings.startup_timeout;
        let state = async {
            let missing = first_missing(pool, migrator).await?;
            let may_migrate = missing.is_some() && !settings.environment.is_production();
            Ok::<_, Error>((missing, may_migrate && owns_schema(pool).await?))
        };
        match state.await {
            Ok((None, _)) => return Ok(()),
            Ok((Some(_), true)) => return migrate(migrator, settings).await,
            Ok((Some(version), false)) if is_late => {
                return Err(Error::SchemaBehind { version, waited: settings.startup_timeout });
            }
            Ok((Some(version), false)) => {
                tracing::warn!(version, "the schema is behind; waiting for `migrate`");
            }
            Err(error) if is_late || !is_outage(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the schema cannot be read yet");
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn owns_schema(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT has_schema_privilege('public', 'CREATE')").fetch_one(pool).await
}

/// What the role of the database's name needs to serve, when another one owns the schema: rows, and of the list of migrations
/// only to read it. The lock is there because init containers of several replicas come here at once, and what they change is
/// the same rows of the server's catalogue.
const GRANT: &str = "DO $$
DECLARE serving text := quote_ident(current_database());
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = current_database() AND rolname <> current_user) THEN
        PERFORM pg_advisory_xact_lock(hashtext('stampede migrate grants'));
        EXECUTE 'GRANT USAGE ON SCHEMA public TO ' || serving;
        EXECUTE 'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ' || serving;
        EXECUTE 'GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO ' || serving;
        EXECUTE 'REVOKE INSERT, UPDATE, DELETE ON _sqlx_migrations FROM ' || serving;
        EXECUTE 'ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO ' || serving;
    END IF;
END $$";

/// Applies what is missing, over a connection of its own without the pool's time limits. Several processes may try
/// at once: an advisory lock lets one of them work. Migrations that this binary does not know are a newer version's: an
/// older one that is started again during a roll-out, or after a roll-back, lives with them.
pub(crate) async fn migrate(migrator: &Migrator, settings: &Settings) -> Result<(), Error> {
    let options = base_options(settings)?.options([("lock_timeout", millis(MIGRATION_LOCK_TIMEOUT))]);
    let mut migrator = Migrator::with_migrations(migrator.iter().cloned().collect());
    migrator.set_ignore_missing(true);
    let once = async || {
        let mut connection = options.connect().await?;
        migrator.run_direct(None, &mut connection, false).await?;
        sqlx::raw_sql(GRANT).execute(&mut connection).await?;
        connection.close().await?;
        Ok::<_, Error>(())
    };
    let give_up = Instant::now() + MIGRATION_TIMEOUT;
    loop {
        let migrated = timeout(give_up.saturating_duration_since(Instant::now()), once()).await;
        match migrated.unwrap_or_else(|_elapsed| Err(took_too_long())) {
            // What was begun is rolled back, and the traffic has its turn.
            Err(error) if is_outage(&error) && Instant::now() + PAUSE_MAX < give_up => {
                tracing::warn!(error = &error as &dyn std::error::Error, "migrating is tried again");
                sleep(PAUSE_MAX).await;
            }
            result => return result,
        }
    }
}

fn took_too_long() -> Error {
    let reason = format!("migrating was not done within {MIGRATION_TIMEOUT:?}");
    Error::Database(io::Error::new(io::ErrorKind::TimedOut, reason).into())
}

/// The first migration that the database lacks. Those that it has and this binary does not know are a newer
/// version's, which runs beside this one during a roll-out.
async fn first_missing(pool: &PgPool, migrator: &Migrator) -> Result<Option<i64>, Error> {
    // It is granted with everything else, when all of it is there.
    let is_granted =
        "SELECT coalesce(has_table_privilege(to_regclass('_sqlx_migrations')::oid, 'SELECT'), false)";
    let is_granted: bool = sqlx::query_scalar(is_granted).fetch_one(pool).await?;
    let applied: Vec<(i64, Vec<u8>)> = if is_granted {
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success").fetch_all(pool).await?
    } else {
        Vec::new()
    };
    for migration in migrator.iter().filter(|migration| !migration.migration_type.is_down_migration()) {
        match applied.iter().find(|(version, _)| *version == migration.version) {
            None => return Ok(Some(migration.version)),
            Some((_, checksum)) if *checksum == *migration.checksum => {}
            Some((version, _)) => return Err(MigrateError::VersionMismatch(*version).into()),
        }
    }
    Ok(None)
}

fn pool_options(settings: &Settings, policy: &Database) -> Result<PgConnectOptions, Error> {
    let lock_ms = settings.database.lock_ms.unwrap_or(policy.lock_ms);
    Ok(base_options(settings)?.options([
        ("statement_timeout", statement_ms(settings, policy).to_string()),
        ("lock_timeout", lock_ms.to_string()),
        ("idle_in_transaction_session_timeout", millis(IDLE_IN_TRANSACTION_MAX)),
        // Statements are planned once and their plans kept. Those of the first requests see empty tables, for which
        // reading all of it is best; a minute later, in a stampede, it is thousands of rows for each buyer, until the
        // statistics are renewed. Every statement of ours has an index, so a scan is never what is meant.
        ("enable_seqscan", "off".to_owned()),
        // With an index for everything there is nothing to gain from planning anew with the values at hand.
        ("plan_cache_mode", "force_generic_plan".to_owned()),
    ]))
}

fn base_options(settings: &Settings) -> Result<PgConnectOptions, Error> {
    let expected = "postgres://user:password@host/database".to_owned();
    let key = "DATABASE_URL".to_owned();
    let Some(url) = &settings.database_url else {
        return Err(EnvError::Missing { key, expected }.into());
    };
    // The parser takes other schemes too, and its message is left out because it may quote the password.
    let is_postgres = ["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme));
    let options = url.expose().parse::<PgConnectOptions>().ok().filter(|_| is_postgres);
    let unreadable = || EnvError::Invalid { key, expected, reason: "it is no such URL".to_owned() };
    let options = options.ok_or_else(unreadable)?;
    // The server's side of the socket: it frees what a machine held that vanished.
    let socket = [
        ("tcp_keepalives_idle", KEEPALIVE_IDLE_S),
        ("tcp_keepalives_interval", KEEPALIVE_INTERVAL_S),
        ("tcp_keepalives_count", KEEPALIVE_COUNT),
        ("tcp_user_timeout", USER_TIMEOUT_MS),
    ];
    Ok(options.application_name(&settings.instance).options(socket))
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// Whether waiting does not help. On a laptop a role that is not let in (class 28) never will be; in production somebody
/// else makes the roles, perhaps just now.
fn is_final(error: &sqlx::Error, settings: &Settings) -> bool {
    match error {
        sqlx::Error::Configuration(_) => true,
        error => Failure::refuses_role(error) && !settings.environment.is_production(),
    }
}

/// Shows the pool as the semantic conventions ask, `db.client.connection.*`.
fn observe(pool: &PgPool, name: &str) {
    let meter = stampede_telemetry::meter();
    let observed = pool.clone();
    let named = KeyValue::new("db.client.connection.pool.name", name.to_owned());
    let [is_idle, is_used] =
        ["idle", "used"].map(|state| [named.clone(), KeyValue::new("db.client.connection.state", state)]);
    let _count = meter
        .i64_observable_up_down_counter("db.client.connection.count")
        .with_description("Connections of the pool.")
        .with_unit("{connection}")
        .with_callback(move |observer| {
            let idle = i64::try_from(observed.num_idle()).unwrap_or(i64::MAX);
            let used = i64::from(observed.size()).saturating_sub(idle);
            observer.observe(idle, &is_idle);
            observer.observe(used, &is_used);
        })
        .build();
    let max = i64::from(pool.max_connections());
    let _max = meter
        .i64_observable_up_down_counter("db.client.connection.max")
        .with_description("Connections that the pool may have.")
        .with_unit("{connection}")
        .with_callback(move |observer| observer.observe(max, std::slice::from_ref(&named)))
        .build();
}
