//! The ledger in Postgres. One transaction per operation; the first to write a key wins.

use sqlx::{PgConnection, PgPool};
use stampede_contracts::Timestamp;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::card::Card;
use crate::domain::{self, Authorisation, Capture, Decision, Kind, Operation, Request, Status};

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

/// A webhook that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueWebhook {
    /// Names the event; the same however often it is sent.
    pub event_id: String,
    /// How often it was tried, this time included.
    pub attempts: i32,
    /// What it tells about.
    pub operation: Operation,
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
        let fingerprint = request.fingerprint();
        let mut tx = self.pool.begin().await?;
        let (about, decision) = decide(&mut tx, request).await?;
        let new = NewOperation {
            key,
            kind: request.kind(),
            about,
            decision,
            card: request.card(),
            fingerprint: Some(&fingerprint),
            tell_at,
        };
        let performed = match insert(&mut tx, new).await? {
            Some(operation) => Performed::First(operation),
            None => again(&mut tx, key, &fingerprint).await?,
        };
        tx.commit().await?;
        Ok(performed)
    }

    /// What was decided under a key.
    ///
    /// # Errors
    /// Of the database.
    pub async fn find(&self, key: &str) -> Result<Option<Operation>, sqlx::Error> {
        find(&mut *self.pool.acquire().await?, key).await
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

    /// Takes webhooks that are due and leaves them alone for `lease`, in which they have to be settled.
    ///
    /// # Errors
    /// Of the database.
    pub async fn due_webhooks(
        &self,
        limit: i64,
        lease: time::Duration,
    ) -> Result<Vec<DueWebhook>, sqlx::Error> {
        let rows = sqlx::query!(
            r#"WITH due AS (
                   UPDATE webhook SET attempts = attempts + 1, due_at = now() + make_interval(secs => $2)
                   WHERE event_id IN (SELECT event_id FROM webhook WHERE due_at <= now()
                                      ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
                   RETURNING event_id, key, attempts)
               SELECT due.event_id, due.attempts, o.key, o.seq, o.kind, o.status, o.id, o.about, o.amount,
                      o.currency, o.reference, o.reason, o.fingerprint, o.at
               FROM due JOIN operation o USING (key)"#,
            limit,
            lease.as_seconds_f64(),
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let operation = Row {
                    key: row.key,
                    seq: row.seq,
                    kind: row.kind,
                    status: row.status,
                    id: row.id,
                    about: row.about,
                    amount: row.amount,
                    currency: row.currency,
                    reference: row.reference,
                    reason: row.reason,
                    fingerprint: row.fingerprint,
                    at: row.at,
                };
                Ok(DueWebhook {
                    event_id: row.event_id,
                    attempts: row.attempts,
                    operation: operation.operation()?,
                })
            })
            .collect()
    }

    /// Forgets webhooks that were delivered, or given up.
    ///
    /// # Errors
    /// Of the database.
    pub async fn forget_webhooks(&self, event_ids: &[String]) -> Result<(), sqlx::Error> {
        sqlx::query!("DELETE FROM webhook WHERE event_id = ANY($1)", event_ids).execute(&self.pool).await?;
        Ok(())
    }

    /// Says when webhooks are tried again.
    ///
    /// # Errors
    /// Of the database.
    pub async fn postpone_webhooks(
        &self,
        event_ids: &[String],
        due_at: &[OffsetDateTime],
    ) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE webhook SET due_at = later.due_at
             FROM unnest($1::text[], $2::timestamptz[]) AS later (event_id, due_at)
             WHERE webhook.event_id = later.event_id",
            event_ids,
            due_at,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// Reads what a decision needs, locks it until the end of the transaction, and decides.
async fn decide(
    connection: &mut PgConnection,
    request: &Request,
) -> Result<(Option<String>, Decision), sqlx::Error> {
    Ok(match request {
        Request::Authorise { amount, reference, .. } => {
            (None, domain::authorise(request.card(), *amount, reference))
        }
        Request::Capture { authorisation: id } => {
            (Some(id.clone()), domain::capture(authorisation(connection, id).await?.as_ref()))
        }
        Request::Void { authorisation: id } => {
            (Some(id.clone()), domain::void(authorisation(connection, id).await?.as_ref()))
        }
        Request::Refund { capture: id, amount } => {
            (Some(id.clone()), domain::refund(capture(connection, id).await?.as_ref(), *amount))
        }
    })
}

async fn authorisation(
    connection: &mut PgConnection,
    id: &str,
) -> Result<Option<Authorisation>, sqlx::Error> {
    let locked = sqlx::query!(
        r#"SELECT amount AS "amount!", currency AS "currency!", reference AS "reference!", card
           FROM operation WHERE id = $1 AND status = 'authorised' FOR UPDATE"#,
        id,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = locked else { return Ok(None) };
    // A statement of its own, because only one that begins after the lock was granted sees what its last owner did.
    let end = sqlx::query_scalar!(
        "SELECT status FROM operation WHERE about = $1 AND status IN ('captured', 'voided')",
        id,
    )
    .fetch_optional(connection)
    .await?;
    Ok(Some(Authorisation {
        amount: row.amount,
        currency: row.currency,
        reference: row.reference,
        card: row.card.as_deref().and_then(Card::from_word),
        end: end.as_deref().and_then(Status::from_word),
    }))
}

async fn capture(connection: &mut PgConnection, id: &str) -> Result<Option<Capture>, sqlx::Error> {
    let locked = sqlx::query!(
        r#"SELECT amount AS "amount!", currency AS "currency!", reference AS "reference!"
           FROM operation WHERE id = $1 AND status = 'captured' FOR UPDATE"#,
        id,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = locked else { return Ok(None) };
    let refunded = sqlx::query_scalar!(
        r#"SELECT coalesce(sum(amount), 0)::bigint AS "refunded!" FROM operation
           WHERE about = $1 AND status = 'refunded'"#,
        id,
    )
    .fetch_one(connection)
    .await?;
    Ok(Some(Capture { amount: row.amount, currency: row.currency, reference: row.reference, refunded }))
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

struct Row {
    key: String,
    seq: i64,
    kind: String,
    status: String,
    id: Option<String>,
    about: Option<String>,
    amount: Option<i64>,
    currency: Option<String>,
    reference: Option<String>,
    reason: Option<String>,
    fingerprint: Option<Vec<u8>>,
    at: OffsetDateTime,
}

impl Row {
    fn operation(self) -> Result<Operation, sqlx::Error> {
        let unknown = |column: &str, word: &str| {
            sqlx::Error::Decode(format!("{column} {word} of operation {} is not known", self.key).into())
        };
        Ok(Operation {
            kind: Kind::from_word(&self.kind).ok_or_else(|| unknown("kind", &self.kind))?,
            status: Status::from_word(&self.status).ok_or_else(|| unknown("status", &self.status))?,
            key: self.key,
            seq: self.seq,
            id: self.id,
            about: self.about,
            amount: self.amount,
            currency: self.currency,
            reference: self.reference,
            reason: self.reason,
            at: Timestamp::from(self.at),
        })
    }
}
