//! Notify's database. One method a use case.

use std::time::Duration;

use sqlx::{migrate::Migrator, types::Json};
use stampede_bus::Message;
use stampede_contracts::{OrderId, StepId, command::MailCommand, event::MailResult};
use stampede_outbox::Outbox;
use stampede_postgres::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

/// The schema.
pub static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// A command that arrived, and the message it came in.
#[derive(Debug, Clone)]
pub struct Taken {
    /// What it says.
    pub command: MailCommand,
    /// The message, kept for a dead letter.
    pub message: Message,
    /// The dead letter it was, if a person sent it again.
    pub replay_of: Option<u64>,
}

/// A mail that is due, leased to this process.
#[derive(Debug, Clone)]
pub struct Due {
    /// The step.
    pub step_id: StepId,
    /// The order.
    pub order_id: OrderId,
    /// The command as it arrived.
    pub message: Message,
    /// Attempts so far, this one included, without those that an outage cut short.
    pub attempts: i32,
}

/// How a mail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The mail server has it.
    Sent,
    /// It was laid aside.
    Dead,
    /// There was nothing to send any more.
    Withdrawn,
}

/// Notify's database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    outbox: Outbox,
    /// The name of this process among its replicas.
    instance: String,
}

impl Store {
    /// On a migrated database; mails are leased to `instance`.
    pub fn new(pool: PgPool, outbox: Outbox, instance: impl Into<String>) -> Self {
        Self { pool, outbox, instance: instance.into() }
    }

    /// Takes commands into the table, all in one statement. A command that is there already stays as it is; if it has
    /// ended, its result is published once more, because somebody is still asking for it. Only the replay of a
    /// dead letter opens a mail again that was given up; the orders of these are returned.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn take(&self, taken: &[Taken]) -> Result<Vec<OrderId>, sqlx::Error> {
        let steps: Vec<_> = taken.iter().map(|taken| taken.command.step_id.uuid()).collect();
        let orders: Vec<_> = taken.iter().map(|taken| taken.command.order_id.uuid()).collect();
        let messages: Vec<_> = taken.iter().map(|taken| serde_json_value(&taken.message)).collect();
        let new = sqlx::query_scalar!(
            "INSERT INTO mail (step_id, order_id, command)
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[]) ON CONFLICT (step_id) DO NOTHING
             RETURNING step_id",
            &steps,
            &orders,
            &messages,
        )
        .fetch_all(&self.pool)
        .await?;
        let again: Vec<Uuid> = steps.into_iter().filter(|step| !new.contains(step)).collect();
        if again.is_empty() {
            return Ok(Vec::new());
        }
        let blocked = self.outbox.blocked().await?;
        let mut tx = self.pool.begin().await?;
        let opened = Self::open_again(&mut tx, taken).await?;
        let ended = sqlx::query!(
            r#"SELECT step_id, order_id, state = 'sent' AS "sent!", command AS "command: Json<Message>"
               FROM mail WHERE step_id = ANY($1) AND state <> 'open'"#,
            &again,
        )
        .fetch_all(&mut *tx)
        .await?;
        let results = ended.into_iter().map(|row| {
            let (step_id, order_id) = (StepId::from_uuid(row.step_id), OrderId::from_uuid(row.order_id));
            Ok((order_id.to_string(), result(step_id, order_id, row.sent, &row.command.0)?))
        });
        let mut results = results.collect::<Result<Vec<_>, sqlx::Error>>()?;
        // A result in a blocked lane is not repeated: the command will be, and then its result.
        results.retain(|(order, result)| !blocked.has(order, result));
        let stored = self.outbox.add_all(&mut tx, &results).await?;
        tx.commit().await?;
        stored.nudge();
        Ok(opened)
    }

    /// Opens mails again that were given up, with fresh attempts, where the command is a replay. The row then keeps
    /// the replay, so that the same one delivered twice opens it once, and another death is another dead letter.
    async fn open_again(connection: &mut PgConnection, taken: &[Taken]) -> Result<Vec<OrderId>, sqlx::Error> {
        let replays: Vec<_> = taken.iter().filter(|taken| taken.replay_of.is_some()).collect();
        if replays.is_empty() {
            return Ok(Vec::new());
        }
        let steps: Vec<_> = replays.iter().map(|taken| taken.command.step_id.uuid()).collect();
        let messages: Vec<_> = replays.iter().map(|taken| serde_json_value(&taken.message)).collect();
        let opened = sqlx::query_scalar!(
            "UPDATE mail SET state = 'open', attempts = 0, next_at = now(), last_error = NULL, ended_at = NULL,
                 command = replay.command
             FROM unnest($1::uuid[], $2::jsonb[]) AS replay (step_id, command)
             WHERE mail.step_id = replay.step_id AND mail.state = 'dead'
                 AND mail.command ->> 'msg_id' <> replay.command ->> 'msg_id'
             RETURNING order_id",
            &steps,
            &messages,
        )
        .fetch_all(connection)
        .await?;
        Ok(opened.into_iter().map(OrderId::from_uuid).collect())
    }

    /// Leases mails that are due. If this process dies, they are due again when the lease is over.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn lease(&self, limit: u32, lease: Duration) -> Result<Vec<Due>, sqlx::Error> {
        let rows = sqlx::query!(
            r#"UPDATE mail SET attempts = attempts + 1, next_at = now() + $2, leased_by = $3
               WHERE step_id IN (
                   SELECT step_id FROM mail WHERE state = 'open' AND next_at <= now()
                   ORDER BY next_at LIMIT $1 FOR UPDATE SKIP LOCKED
               )
               RETURNING step_id, order_id, attempts, command"#,
            i64::from(limit),
            lease as _,
            self.instance,
        )
        .fetch_all(&self.pool)
        .await?;
        // A command that cannot be read is the matter of a person, or of a newer version: it does not hold back the others.
        let due = rows.into_iter().filter_map(|row| {
            let step_id = StepId::from_uuid(row.step_id);
            let unreadable = |error| tracing::error!(%step_id, %error, "a mail's command cannot be read");
            let message = serde_json::from_value(row.command).map_err(unreadable).ok()?;
            let order_id = OrderId::from_uuid(row.order_id);
            Some(Due { step_id, order_id, message, attempts: row.attempts })
        });
        Ok(due.collect())
    }

    /// Ends all leases of this instance, when it starts to work: its predecessor of the same name is dead.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn release_all(&self) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE mail SET next_at = now(), leased_by = NULL WHERE leased_by = $1 AND state = 'open'",
            self.instance,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// When the next mail is due, if any is open.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn next_due(&self) -> Result<Option<OffsetDateTime>, sqlx::Error> {
        sqlx::query_scalar!("SELECT min(next_at) FROM mail WHERE state = 'open'").fetch_one(&self.pool).await
    }

    /// Tries a mail again later.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn postpone(&self, step: StepId, pause: Duration, error: &str) -> Result<(), sqlx::Error> {
        self.put_off(step, pause, 0, error).await
    }

    /// Tries a mail again later, without counting this attempt: an outage neither took nor rejected it.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn wait(&self, step: StepId, pause: Duration, error: &str) -> Result<(), sqlx::Error> {
        self.put_off(step, pause, 1, error).await
    }

    async fn put_off(
        &self,
        step: StepId,
        pause: Duration,
        unspent: i32,
        error: &str,
    ) -> Result<(), sqlx::Error> {
        // An interval of Postgres counts microseconds, and a finer one is refused.
        let pause = Duration::from_micros(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX));
        sqlx::query!(
            "UPDATE mail SET next_at = now() + $2, leased_by = NULL, attempts = attempts - $3, last_error = $4
             WHERE step_id = $1 AND state = 'open'",
            step.uuid(),
            pause as _,
            unspent,
            error,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Ends a mail and publishes its result, in one statement.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn end(&self, due: &Due, end: End, error: Option<&str>) -> Result<(), sqlx::Error> {
        let state = match end {
            End::Sent => "sent",
            End::Dead => "dead",
            End::Withdrawn => "withdrawn",
        };
        let result = result(due.step_id, due.order_id, end == End::Sent, &due.message)?;
        let result = self.outbox.row(&due.order_id.to_string(), result);
        sqlx::query!(
            "WITH ended AS (
                UPDATE mail SET state = $2, ended_at = now(), last_error = $3 WHERE step_id = $1 AND state = 'open'
                RETURNING step_id
            ), stored AS (
                INSERT INTO outbox (partition, aggregate, subject, ce_id, ce_source, ce_type, ce_time,
                    correlation_id, causation_id, traceparent, msg_id, payload)
                SELECT partition, aggregate, subject, ce_id, ce_source, ce_type, ce_time,
                    correlation_id, causation_id, traceparent, msg_id, convert_to(payload, 'UTF8')
                FROM ended, jsonb_to_record($4) AS new (partition smallint, aggregate bigint, subject text,
                    ce_id text, ce_source text, ce_type text, ce_time timestamptz, correlation_id text,
                    causation_id text, traceparent text, msg_id text, payload text)
            )
            SELECT CASE WHEN $5 THEN pg_notify($6, '')::text END AS woken FROM ended",
            due.step_id.uuid(),
            state,
            error,
            Json(&result) as _,
            result.is_held_elsewhere(),
            stampede_outbox::CHANNEL,
        )
        .fetch_optional(&self.pool)
        .await?;
        self.outbox.nudge();
        Ok(())
    }

    /// How many mails are open.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn open(&self) -> Result<i64, sqlx::Error> {
        let open = sqlx::query_scalar!("SELECT count(*) FROM mail WHERE state = 'open'")
            .fetch_one(&self.pool)
            .await?;
        Ok(open.unwrap_or_default())
    }
}

fn serde_json_value(message: &Message) -> sqlx::types::JsonValue {
    serde_json::to_value(message).unwrap_or_default()
}

// The result's id follows from the step's and from what became of it: the same one told again is known as such, and a
// mail that was sent after it had been given up is news.
fn result(step_id: StepId, order_id: OrderId, sent: bool, command: &Message) -> Result<Message, sqlx::Error> {
    let outcome = if sent { "sent" } else { "given_up" };
    let message = Message::new(&MailResult { step_id, order_id, sent }, format!("mail.{step_id}.{outcome}"))
        .map_err(|error| sqlx::Error::Encode(error.into()))?;
    // Somebody who asks again must get an answer that JetStream does not take for the first one.
    let attempt = format!("{}.{}", message.ce_id, Uuid::now_v7().simple());
    Ok(Message {
        msg_id: attempt,
        ..message.caused_by(&command.ce_id).traced_by(command.traceparent.clone())
    })
}
