//! Changing an order: lock its row, change it in memory, write what is different.

use sqlx::PgConnection;
use sqlx::types::Json;
use stampede_contracts::{OrderId, Timestamp, inventory::SeatLabel};
use time::OffsetDateTime;
use uuid::Uuid;

use super::rows::{OrderRow, StepRow};
use super::{CHANNEL, Store};
use crate::domain::{Order, Reply, Step, Ticket};
use crate::wakeups::Change;

/// An order whose row is locked by the current transaction.
#[derive(Debug)]
pub struct Locked {
    /// As it is in the database.
    pub before: Order,
    /// As it is to be.
    pub order: Order,
    /// The database's clock, read after the lock was had: one clock for all replicas.
    pub now: Timestamp,
}

/// What is written beside the order and its steps.
#[derive(Debug)]
pub struct Write<'a> {
    /// The answer, if this is the moment for it.
    pub reply: Option<&'a Reply>,
    /// When the sweeper repeats the steps that begin now, or what was refused now.
    pub next_at: Timestamp,
    /// What whoever waits for the order is told.
    pub change: Change,
}

impl Locked {
    /// Steps that are new or changed.
    fn changed_steps(&self) -> Vec<&Step> {
        let known = |step: &Step| self.before.step_by_id(step.id) == Some(step);
        self.order.steps.iter().filter(|step| !known(step)).collect()
    }
}

/// Which step of its kind it is in its order, from 1.
fn nth(order: &Order, step: &Step) -> i16 {
    let before = order.steps.iter().take_while(|earlier| earlier.id != step.id);
    let same_kind = before.filter(|earlier| earlier.kind == step.kind).count();
    i16::try_from(same_kind).map_or(i16::MAX, |before| before.saturating_add(1))
}

impl Store {
    /// Locks orders, in the order of their ids, and reads them. Those that do not exist are left out.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn lock(connection: &mut PgConnection, ids: &[OrderId]) -> Result<Vec<Locked>, sqlx::Error> {
        let ids: Vec<Uuid> = ids.iter().map(OrderId::uuid).collect();
        let rows = sqlx::query_as!(
            OrderRow,
            "SELECT order_id, session_id, state, hold_block, hold_id, show_id, show_title, venue, starts_at,
                cancel_until, amount, currency, quantity, seats AS \"seats: Json<Vec<SeatLabel>>\", order_secret,
                decide_by, cancel_requested_at, settled_at, traceparent, reply_status, created_at
             FROM orders WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE",
            &ids,
        )
        .fetch_all(&mut *connection)
        .await?;
        // Only now: before the lock was had, another transaction may have changed the steps.
        let steps = Self::steps(connection, &ids).await?;
        let lock = |row: OrderRow| {
            let now = steps.iter().find(|step| step.order_id == row.order_id).map(|step| step.now.into());
            let order = row.into_order(&steps)?;
            // Every order has the step it was placed with.
            let now = now.ok_or(sqlx::Error::RowNotFound)?;
            Ok(Locked { before: order.clone(), order, now })
        };
        rows.into_iter().map(lock).collect()
    }

    pub(super) async fn steps(
        connection: &mut PgConnection,
        ids: &[Uuid],
    ) -> Result<Vec<StepRow>, sqlx::Error> {
        sqlx::query_as!(
            StepRow,
            "SELECT order_id, step_id, kind, state, attempt, repeated_at, outcome, created_at, done_at,
                clock_timestamp() AS \"now!\"
             FROM step WHERE order_id = ANY($1) ORDER BY created_at, step_id",
            ids,
        )
        .fetch_all(connection)
        .await
    }

    /// Writes a changed order and its changed steps in one statement, and tells other replicas if there is news
    /// for them.
    ///
    /// A step's outcome is set by compare-and-set: one that is done stays as it is.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn save(
        connection: &mut PgConnection,
        locked: &Locked,
        write: Write<'_>,
    ) -> Result<(), sqlx::Error> {
        let order = &locked.order;
        let facts = order.facts.as_ref();
        let steps = locked.changed_steps();
        let column = |value: fn(&Step) -> Option<String>| -> Vec<Option<String>> {
            steps.iter().map(|step| value(step)).collect()
        };
        let done_at: Vec<Option<OffsetDateTime>> =
            steps.iter().map(|step| step.done_at.map(Timestamp::inner)).collect();
        sqlx::query!(
            "WITH changed AS (
                UPDATE orders SET state = $2, cancel_requested_at = $3, settled_at = $4,
                    show_id = $5, show_title = $6, venue = $7, starts_at = $8, cancel_until = $9,
                    amount = $10, currency = $11, quantity = $12, seats = $13,
                    card_token = CASE WHEN $14 THEN NULL ELSE card_token END,
                    reply_status = COALESCE(reply_status, $15), reply_body = COALESCE(reply_body, $16)
                WHERE order_id = $1
            ), kept AS (
                INSERT INTO step (step_id, order_id, kind, nth, state, outcome, created_at, done_at, next_at)
                SELECT new.step_id, $1, new.kind, new.nth, new.state, new.outcome, new.created_at, new.done_at, $17
                FROM unnest($18::uuid[], $19::text[], $20::text[], $21::text[], $22::timestamptz[], $23::timestamptz[],
                        $27::smallint[])
                    AS new (step_id, kind, state, outcome, created_at, done_at, nth)
                ON CONFLICT (step_id) DO UPDATE
                    SET state = excluded.state, outcome = excluded.outcome, done_at = excluded.done_at,
                        next_at = excluded.next_at
                    WHERE step.state <> 'done'
            )
            SELECT pg_notify($24, $25) WHERE $26",
            order.id.uuid(),
            order.state.as_str(),
            order.cancel_requested_at.map(Timestamp::inner),
            order.settled_at.map(Timestamp::inner),
            facts.map(|facts| facts.show_id.uuid()),
            facts.map(|facts| facts.show.title.as_str()),
            facts.map(|facts| facts.show.venue.as_str()),
            facts.map(|facts| facts.show.starts_at.inner()),
            facts.map(|facts| facts.show.cancel_until.inner()),
            facts.map(|facts| facts.total.amount()),
            facts.map(|facts| facts.total.currency().to_string()),
            facts.map(|facts| i32::try_from(facts.quantity).unwrap_or(i32::MAX)),
            facts.map(|facts| Json(&facts.seats)) as _,
            order.card_is_spent(),
            write.reply.map(|reply| i16::try_from(reply.status).unwrap_or(500)),
            write.reply.map(|reply| reply.body.as_slice()),
            write.next_at.inner(),
            &steps.iter().map(|step| step.id.uuid()).collect::<Vec<_>>(),
            &column(|step| Some(step.kind.as_str().to_owned())) as &[Option<String>],
            &column(|step| Some(step.state.as_str().to_owned())) as &[Option<String>],
            &column(|step| step.outcome.clone()) as &[Option<String>],
            &steps.iter().map(|step| step.created_at.inner()).collect::<Vec<_>>(),
            &done_at as &[Option<OffsetDateTime>],
            CHANNEL,
            order.id.to_string(),
            write.change.is_for_all(),
            &steps.iter().map(|step| nth(order, step)).collect::<Vec<_>>(),
        )
        .fetch_optional(connection)
        .await?;
        Ok(())
    }

    /// Writes new tickets.
    ///
    /// # Errors
    /// Those of the database; when a seat has a valid ticket already, a unique violation.
    pub async fn issue(connection: &mut PgConnection, tickets: &[Ticket]) -> Result<(), sqlx::Error> {
        let seats: Vec<Option<String>> =
            tickets.iter().map(|ticket| ticket.seat.seat_id.map(|seat| seat.to_string())).collect();
        sqlx::query!(
            "INSERT INTO ticket (ticket_id, order_id, show_id, seat, label, code, created_at)
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::jsonb[], $6::text[],
                $7::timestamptz[])",
            &tickets.iter().map(|ticket| ticket.id.uuid()).collect::<Vec<_>>(),
            &tickets.iter().map(|ticket| ticket.order_id.uuid()).collect::<Vec<_>>(),
            &tickets.iter().map(|ticket| ticket.show_id.uuid()).collect::<Vec<_>>(),
            &seats as &[Option<String>],
            &tickets.iter().map(|ticket| Json(&ticket.seat)).collect::<Vec<_>>() as _,
            &tickets.iter().map(|ticket| ticket.code.clone()).collect::<Vec<_>>(),
            &tickets.iter().map(|ticket| ticket.created_at.inner()).collect::<Vec<_>>(),
        )
        .execute(connection)
        .await?;
        Ok(())
    }

    /// Revokes the tickets of an order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn revoke(
        connection: &mut PgConnection,
        order: OrderId,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE ticket SET state = 'revoked', revoked_at = $2 WHERE order_id = $1 AND state = 'valid'",
            order.uuid(),
            now.inner(),
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}
