//! The ledger in Postgres. One transaction an operation; the first to write a key wins.

mod decide;
mod row;
mod webhook;

use stampede_postgres::{PgConnection, PgPool, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use self::decide::decide;
use self::row::Row;
use crate::card::Card;
use crate::domain::{Decision, Kind, Operation, Request};

pub use self::webhook::DueWebhook;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Performed {
    /// It was decided now.
    First(Operation),
    /// It was decided before: this is the same answer.
    Again(Operation),
    /// The key came with another request before.
    OtherRequest,
}

/// The ledger and the list of what the merchant has yet to be told.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// The store in a database with the schema of `migrations/`.
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Decides a request, or finds what was decided under its key before. With `tell_at` the merchant is told then.
    ///
    /// # Errors
    /// Of the database; the transaction is then rolled back or its outcome unknown.
    pub async fn perform(
        &self,
        key: &str,
        request: &Request,
        tell_at: Option<OffsetDateTime>,
    ) -> Result<Performed, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        if matches!(request, Request::Authorise { .. }) {
            // Nothing that was decided before says anything about it, so there is nothing to lock.
            return write(&mut connection, key, request, tell_at).await;
        }
        let mut tx = Transaction::begin(connection).await?;
        let performed = write(&mut tx, key, request, tell_at).await?;
        tx.commit().await?;
        Ok(performed)
    }

    /// What was decided under a key.
    ///
    /// # Errors
    /// Of the database.
    pub async fn find(&self, key: &str) -> Result<Option<Operation>, sqlx::Error> {
        find(&mut self.pool.acquire().await?, key).await
    }

    /// Makes sure that nothing happens under a key from now on, or says what has happened.
    ///
    /// # Errors
    /// Of the database.
    pub async fn cancel(&self, key: &str) -> Result<Operation, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        let tombstone = NewOperation {
            key,
            kind: Kind::Cancel,
            about: None,
            decision: Decision::default(),
            card: None,
            fingerprint: None,
            tell_at: None,
        };
        // Two statements and no transaction: rows are never deleted, so what stood in the way is still there.
        match insert(&mut connection, tombstone).await? {
            Some(tombstone) => Ok(tombstone),
            None => find(&mut connection, key).await?.ok_or(sqlx::Error::RowNotFound),
        }
    }

    /// The ledger after a place in it, oldest first.
    ///
    /// # Errors
    /// Of the database.
    pub async fn ledger(&self, after: i64, limit: i64) -> Result<Vec<Operation>, sqlx::Error> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT key, seq, kind, status, id, about, amount, currency, reference, reason, fingerprint, at
             FROM operation WHERE seq > $1 ORDER BY seq LIMIT $2",
            after,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(Row::operation).collect()
    }
}

async fn write(
    connection: &mut PgConnection,
    key: &str,
    request: &Request,
    tell_at: Option<OffsetDateTime>,
) -> Result<Performed, sqlx::Error> {
    let fingerprint = request.fingerprint();
    let (about, decision) = decide(connection, request).await?;
    let new = NewOperation {
        key,
        kind: request.kind(),
        about,
        decision,
        card: request.card(),
        fingerprint: Some(&fingerprint),
        tell_at,
    };
    match insert(connection, new).await? {
        Some(operation) => Ok(Performed::First(operation)),
        // Rows are never deleted, so what stood in the way is still there.
        None => again(connection, key, &fingerprint).await,
    }
}

struct NewOperation<'a> {
    key: &'a str,
    kind: Kind,
    about: Option<String>,
    decision: Decision,
    card: Option<Card>,
    fingerprint: Option<&'a [u8]>,
    tell_at: Option<OffsetDateTime>,
}

/// Writes an operation and its webhook in one statement; nothing when its key was there before.
async fn insert(
    connection: &mut PgConnection,
    new: NewOperation<'_>,
) -> Result<Option<Operation>, sqlx::Error> {
    let NewOperation { key, kind, about, decision, card, fingerprint, tell_at } = new;
    let (status, reason) = match decision.refusal {
        Some((status, reason)) => (status, Some(reason)),
        None => (kind.done(), None),
    };
    let name = |prefix: &str| format!("{prefix}_{}", Uuid::now_v7().simple());
    let id = (reason.is_none() && kind != Kind::Cancel).then(|| name(kind.prefix()));
    let row = sqlx::query_as!(
        Row,
        r#"WITH new AS (
               INSERT INTO operation
                   (key, kind, status, id, about, amount, currency, reference, reason, card, fingerprint)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
               ON CONFLICT (key) DO NOTHING
               RETURNING *),
           told AS (
               INSERT INTO webhook (event_id, key, due_at)
               SELECT $12, key, $13::timestamptz FROM new WHERE $13::timestamptz IS NOT NULL)
           SELECT key, seq, kind, status, id, about, amount, currency, reference, reason, fingerprint, at FROM new"#,
        key,
        kind.as_str(),
        status.as_str(),
        id,
        about,
        decision.amount,
        decision.currency,
        decision.reference,
        reason,
        card.map(Card::as_str),
        fingerprint,
        name("evt"),
        tell_at,
    )
    .fetch_optional(connection)
    .await?;
    row.map(Row::operation).transpose()
}

/// The decision that stood in the way of a new one.
async fn again(
    connection: &mut PgConnection,
    key: &str,
    fingerprint: &[u8],
) -> Result<Performed, sqlx::Error> {
    let row = row(connection, key).await?.ok_or(sqlx::Error::RowNotFound)?;
    // A tombstone has no fingerprint: it refuses whatever comes.
    if row.fingerprint.as_deref().is_some_and(|first| first != fingerprint) {
        return Ok(Performed::OtherRequest);
    }
    Ok(Performed::Again(row.operation()?))
}

async fn find(connection: &mut PgConnection, key: &str) -> Result<Option<Operation>, sqlx::Error> {
    row(connection, key).await?.map(Row::operation).transpose()
}

async fn row(connection: &mut PgConnection, key: &str) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        "SELECT key, seq, kind, status, id, about, amount, currency, reference, reason, fingerprint, at
         FROM operation WHERE key = $1",
        key,
    )
    .fetch_optional(connection)
    .await
}
