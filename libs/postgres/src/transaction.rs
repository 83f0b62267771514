//! A transaction, rolled back unless it is committed.

use std::ops::{Deref, DerefMut};

use sqlx::Executor;

use crate::PgConnection;

/// A transaction. Dropping it rolls it back.
#[derive(Debug)]
pub struct Transaction {
    connection: PgConnection,
}

impl Transaction {
    /// Begins one on a connection.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn begin(connection: PgConnection) -> sqlx::Result<Self> {
        Self::begin_with(connection, "BEGIN").await
    }

    pub(crate) async fn begin_with(mut connection: PgConnection, sql: &'static str) -> sqlx::Result<Self> {
        // Before the answer, in case this future is dropped in between.
        connection.in_transaction = true;
        connection.execute(sql).await?;
        Ok(Self { connection })
    }

    /// Commits.
    ///
    /// # Errors
    /// Those of the database. After one of the connection the commit may or may not have happened.
    pub async fn commit(self) -> sqlx::Result<()> {
        self.end("COMMIT").await
    }

    /// Rolls back and waits for it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn rollback(self) -> sqlx::Result<()> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, sql: &'static str) -> sqlx::Result<()> {
        self.connection.execute(sql).await?;
        self.connection.in_transaction = false;
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
