//! A database and two roles for each service, and one role that reads them all.
//!
//! Names come from our own tables and passwords are hexadecimal, so that nothing in these statements needs
//! quoting beyond what is written here.

use anyhow::Context;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use super::VERIFIER;
use crate::secrets::Secrets;
use crate::services;

/// Makes what is missing: every database, its owner, which migrates it and gives the role of the database's name the rights
/// to serve from it. Nobody else but the verifier may connect to it. Returns how many databases are new.
pub(crate) async fn prepare(
    superuser: &PgConnectOptions,
    databases: &[&str],
    secrets: &Secrets,
) -> anyhow::Result<usize> {
    // Passwords must reach no log, neither ours nor the server's.
    let superuser = superuser.clone().disable_statement_logging();
    let mut connection = superuser.connect().await.context("the superuser cannot connect to Postgres")?;
    run(&mut connection, "SET log_min_error_statement = panic").await?;
    run(&mut connection, "REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC").await?;
    role(&mut connection, VERIFIER, &secrets.postgres_password(VERIFIER)?).await?;
    run(&mut connection, &format!("GRANT pg_read_all_data TO {VERIFIER}")).await?;
    run(&mut connection, &format!("ALTER ROLE {VERIFIER} SET default_transaction_read_only = on")).await?;
    let mut made = 0;
    for name in databases {
        let owner = services::owner(name);
        for role_name in [*name, &owner] {
            role(&mut connection, role_name, &secrets.postgres_password(role_name)?).await?;
        }
        made += usize::from(database(&mut connection, name, &owner).await?);
        // Until the owner had a role of its own, all of it was the serving role's.
        let mut within = superuser.clone().database(name).connect().await?;
        run(&mut within, &format!("REASSIGN OWNED BY {name} TO {owner}")).await?;
        within.close().await?;
    }
    connection.close().await?;
    Ok(made)
}

async fn role(connection: &mut PgConnection, name: &str, password: &str) -> anyhow::Result<()> {
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
        .bind(name)
        .fetch_one(&mut *connection)
        .await?;
    let verb = if exists { "ALTER" } else { "CREATE" };
    run(connection, &format!("{verb} ROLE {name} LOGIN PASSWORD '{password}'")).await
}

/// Says whether it was made.
async fn database(connection: &mut PgConnection, name: &str, owner: &str) -> anyhow::Result<bool> {
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        run(connection, &format!("CREATE DATABASE {name} OWNER {owner}")).await?;
    }
    run(connection, &format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC")).await?;
    run(connection, &format!("GRANT CONNECT ON DATABASE {name} TO {name}, {VERIFIER}")).await?;
    Ok(!exists)
}

async fn run(connection: &mut PgConnection, statement: &str) -> anyhow::Result<()> {
    // The error names the kind of statement and never the password in it.
    let kind = statement.split(" PASSWORD ").next().unwrap_or_default().to_owned();
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(connection)
        .await
        .with_context(|| format!("Postgres refused: {kind}"))?;
    Ok(())
}
