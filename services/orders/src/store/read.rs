//! Reading.

use sqlx::PgExecutor;
use sqlx::types::Json;
use stampede_contracts::{OrderId, SessionId, TicketId, inventory::SeatLabel};
use stampede_postgres::PgConnection;
use uuid::Uuid;

use super::rows::{OrderStepRow, TicketRow, snapshots, unreadable};
use super::{CHANNEL, Snapshot, Store};
use crate::domain::{Facts, Order, OrderSecret, Reply, Ticket};

/// An order with all tickets it ever had.
#[derive(Debug, Clone)]
pub struct OrderView {
    /// The order.
    pub order: Order,
    /// Its tickets.
    pub tickets: Vec<Ticket>,
}

/// Who may see something.
#[derive(Debug, Clone)]
pub struct Access {
    /// The session that placed the order.
    pub session: SessionId,
    /// The order's secret.
    pub secret: OrderSecret,
}

/// How far the answer to placing an order is.
#[derive(Debug)]
pub struct Answered {
    /// The stored answer.
    pub reply: Option<Reply>,
    /// Whether the first request still has time to answer.
    pub is_running: bool,
}

/// What a mail needs to know.
#[derive(Debug)]
pub struct BuyerRow {
    /// Name on the tickets.
    pub name: String,
    /// Address.
    pub email: String,
    /// The order's secret.
    pub secret: OrderSecret,
    /// The show and the price.
    pub facts: Facts,
    /// The tickets.
    pub tickets: Vec<Ticket>,
}

impl Store {
    /// An order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn order(&self, id: OrderId) -> Result<Option<OrderView>, sqlx::Error> {
        let mut connection = self.pool().acquire().await?;
        Ok(Self::views(&mut connection, &[id]).await?.pop())
    }

    /// Orders with their steps, newest first. Those that do not exist are left out.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn snapshots(
        executor: impl PgExecutor<'_>,
        ids: &[OrderId],
    ) -> Result<Vec<Snapshot>, sqlx::Error> {
        let ids: Vec<Uuid> = ids.iter().map(OrderId::uuid).collect();
        // Joined, and so one statement that sees both tables at the same moment. Every order has the step it was placed
        // with.
        let rows = sqlx::query_as!(
            OrderStepRow,
            "SELECT orders.order_id, version, session_id, orders.state, hold_block, hold_id, show_id, show_title, venue,
                starts_at, cancel_until, amount, currency, quantity, seats AS \"seats: Json<Vec<SeatLabel>>\",
                order_secret, decide_by, cancel_requested_at, settled_at, traceparent, reply_status, orders.created_at,
                clock_timestamp() AS \"now!\",
                step_id, kind AS step_kind, step.state AS step_state, attempt AS step_attempt,
                repeated_at AS step_repeated_at, outcome AS step_outcome, step.created_at AS step_created_at,
                done_at AS step_done_at
             FROM orders JOIN step ON step.order_id = orders.order_id AND step.order_id = ANY($1)
             WHERE orders.order_id = ANY($1)
             ORDER BY orders.order_id DESC, step.created_at, step_id",
            &ids,
        )
        .fetch_all(executor)
        .await?;
        snapshots(&rows)
    }

    /// Orders with their tickets, newest first.
    async fn views(connection: &mut PgConnection, ids: &[OrderId]) -> Result<Vec<OrderView>, sqlx::Error> {
        let snapshots = Self::snapshots(&mut *connection, ids).await?;
        let ids: Vec<Uuid> = ids.iter().map(OrderId::uuid).collect();
        let tickets = sqlx::query_as!(
            TicketRow,
            "SELECT ticket_id, order_id, ticket.show_id, label AS \"label: Json<SeatLabel>\", code, created_at, revoked_at
             FROM ticket WHERE order_id = ANY($1) ORDER BY ticket_id",
            &ids,
        )
        .fetch_all(&mut *connection)
        .await?;
        let tickets: Vec<Ticket> = tickets.into_iter().map(Into::into).collect();
        let view = |Snapshot { order, .. }| {
            let tickets = tickets.iter().filter(|ticket| ticket.order_id == order.id).cloned().collect();
            OrderView { order, tickets }
        };
        Ok(snapshots.into_iter().map(view).collect())
    }

    /// A session's orders, newest first, after `cursor`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn orders_of(
        &self,
        session: SessionId,
        cursor: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderView>, sqlx::Error> {
        let mut connection = self.pool().acquire().await?;
        let ids = sqlx::query_scalar!(
            "SELECT order_id FROM orders WHERE session_id = $1 AND ($2::uuid IS NULL OR order_id < $2)
             ORDER BY order_id DESC LIMIT $3",
            session.uuid(),
            cursor.map(|id| id.uuid()),
            i64::from(limit),
        )
        .fetch_all(&mut connection)
        .await?;
        let ids: Vec<OrderId> = ids.into_iter().map(OrderId::from_uuid).collect();
        Self::views(&mut connection, &ids).await
    }

    /// A number for each of these orders that grows whenever it changes.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn revisions(&self, ids: &[OrderId]) -> Result<Vec<(OrderId, i64)>, sqlx::Error> {
        let ids: Vec<Uuid> = ids.iter().map(OrderId::uuid).collect();
        let rows = sqlx::query!(
            "SELECT orders.order_id, version + sum(attempt) AS \"revision!\"
             FROM orders JOIN step ON step.order_id = orders.order_id AND step.order_id = ANY($1)
             WHERE orders.order_id = ANY($1) GROUP BY orders.order_id",
            &ids,
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows.into_iter().map(|row| (OrderId::from_uuid(row.order_id), row.revision)).collect())
    }

    /// Whether an order is answered.
    ///
    /// # Errors
    /// Those of the database; when there is no such order, [`sqlx::Error::RowNotFound`].
    pub async fn answered(&self, id: OrderId) -> Result<Answered, sqlx::Error> {
        let row = sqlx::query!(
            "SELECT reply_status, reply_body, running_until > clock_timestamp() AS \"is_running!\"
             FROM orders WHERE order_id = $1",
            id.uuid(),
        )
        .fetch_one(self.pool())
        .await?;
        let reply = match (row.reply_status, row.reply_body) {
            (Some(status), Some(body)) => {
                let status = u16::try_from(status).map_err(|_| unreadable("orders.reply_status"))?;
                let body = String::from_utf8(body).map_err(|_| unreadable("orders.reply_body"))?;
                Some(Reply { status, body })
            }
            _ => None,
        };
        Ok(Answered { reply, is_running: row.is_running })
    }

    /// Stores the answer of an order that has none yet, by compare-and-set. Whoever loses sends the stored one.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn answer_once(&self, id: OrderId, reply: &Reply) -> Result<bool, sqlx::Error> {
        let stored = sqlx::query!(
            "WITH stored AS (
                UPDATE orders SET version = version + 1, reply_status = $2, reply_body = $3
                WHERE order_id = $1 AND reply_status IS NULL RETURNING order_id
            )
            SELECT pg_notify($4, $5) FROM stored",
            id.uuid(),
            i16::try_from(reply.status).unwrap_or(500),
            reply.body.as_bytes(),
            CHANNEL,
            id.to_string(),
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(stored.is_some())
    }

    /// A ticket, and who may see it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn ticket(&self, id: TicketId) -> Result<Option<(Ticket, Access)>, sqlx::Error> {
        let row = sqlx::query!(
            "SELECT ticket_id, order_id, ticket.show_id, label AS \"label: Json<SeatLabel>\", code, ticket.created_at,
                revoked_at, session_id, order_secret
             FROM ticket JOIN orders USING (order_id) WHERE ticket_id = $1",
            id.uuid(),
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(row.map(|row| {
            let access = Access {
                session: SessionId::from_uuid(row.session_id),
                secret: OrderSecret::from_stored(row.order_secret),
            };
            let ticket = TicketRow {
                ticket_id: row.ticket_id,
                order_id: row.order_id,
                show_id: row.show_id,
                label: row.label,
                code: row.code,
                created_at: row.created_at,
                revoked_at: row.revoked_at,
            };
            (ticket.into(), access)
        }))
    }

    /// The card token of an order, while it is needed; nothing when there is no such order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn card_token(&self, id: OrderId) -> Result<Option<Option<String>>, sqlx::Error> {
        sqlx::query_scalar!("SELECT card_token FROM orders WHERE order_id = $1", id.uuid())
            .fetch_optional(self.pool())
            .await
    }

    /// What a mail about an order needs; nothing when there is no such order, or nothing is known of its show.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn buyer(&self, id: OrderId) -> Result<Option<BuyerRow>, sqlx::Error> {
        let row = sqlx::query!("SELECT buyer_name, buyer_email FROM orders WHERE order_id = $1", id.uuid())
            .fetch_optional(self.pool())
            .await?;
        let (Some(row), Some(view)) = (row, self.order(id).await?) else { return Ok(None) };
        let OrderView { order, tickets } = view;
        Ok(order.facts.map(|facts| BuyerRow {
            name: row.buyer_name,
            email: row.buyer_email,
            secret: order.secret,
            facts,
            tickets,
        }))
    }
}
