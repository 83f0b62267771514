//! Writing orders with all that belongs to them, in one statement, unless somebody else was faster.

use std::collections::HashSet;

use serde::Serialize;
use sqlx::types::Json;
use stampede_contracts::{OrderId, Timestamp, inventory::SeatLabel};
use stampede_outbox::NewRow;
use uuid::Uuid;

use super::{CHANNEL, Draft, Store};
use crate::domain::{Carrier, Reply, Step, Ticket};
use crate::wakeups::Change;

/// All that one transaction writes about an order.
#[derive(Debug)]
pub struct Write {
    /// The order and its steps.
    pub draft: Draft,
    /// The answer, if this is the moment for it.
    pub reply: Option<Reply>,
    /// When the sweeper repeats the steps that begin now, or what was refused now.
    pub next_at: Timestamp,
    /// The same for mails.
    pub mails_next_at: Timestamp,
    /// What whoever waits for the order is told.
    pub change: Change,
    /// Tickets to issue.
    pub tickets: Vec<Ticket>,
    /// Whether the tickets that it has are revoked.
    pub revoke: bool,
    /// What is published.
    pub messages: Vec<NewRow>,
}

impl Store {
    /// Writes orders, in one statement and so in one transaction, and tells other replicas if there is news for them.
    /// Gives those that were written; somebody else has changed the others since they were read, and nothing of them
    /// is written.
    ///
    /// A step's outcome is set by compare-and-set: one that is done stays as it is.
    ///
    /// # Errors
    /// Those of the database; when a seat has a valid ticket already, or an event was taken before, a unique violation.
    pub async fn save(&self, writes: &[Write]) -> Result<HashSet<OrderId>, sqlx::Error> {
        let ids: Vec<Uuid> = writes.iter().map(|write| write.draft.order.id.uuid()).collect();
        let documents: Vec<Document<'_>> = writes.iter().map(Document::of).collect();
        let written = sqlx::query!(
            "WITH given AS MATERIALIZED (
                SELECT * FROM jsonb_to_recordset($1) AS given (order_id uuid, version bigint, state text,
                    cancel_requested_at timestamptz, settled_at timestamptz, show_id uuid, show_title text, venue text,
                    starts_at timestamptz, cancel_until timestamptz, amount bigint, currency text, quantity integer,
                    seats jsonb, card_is_spent boolean, reply_status smallint, reply_body text,
                    revoked_at timestamptz, told text, relayed_elsewhere boolean,
                    steps jsonb, events jsonb, tickets jsonb, messages jsonb)
            ), changed AS (
                UPDATE orders SET version = orders.version + 1, state = given.state,
                    cancel_requested_at = given.cancel_requested_at, settled_at = given.settled_at,
                    show_id = given.show_id, show_title = given.show_title, venue = given.venue,
                    starts_at = given.starts_at, cancel_until = given.cancel_until, amount = given.amount,
                    currency = given.currency, quantity = given.quantity, seats = given.seats,
                    card_token = CASE WHEN given.card_is_spent THEN NULL ELSE orders.card_token END,
                    reply_status = COALESCE(orders.reply_status, given.reply_status),
                    reply_body = COALESCE(orders.reply_body, convert_to(given.reply_body, 'UTF8'))
                FROM given
                WHERE orders.order_id = ANY($2) AND orders.order_id = given.order_id AND orders.version = given.version
                RETURNING given.*
            ), kept AS (
                INSERT INTO step (step_id, order_id, kind, nth, state, outcome, created_at, done_at, next_at)
                SELECT new.step_id, changed.order_id, new.kind, new.nth, new.state, new.outcome, new.created_at, new.done_at,
                    new.next_at
                FROM changed, jsonb_populate_recordset(NULL::step, steps) AS new
                ON CONFLICT (step_id) DO UPDATE
                    SET state = excluded.state, outcome = excluded.outcome, done_at = excluded.done_at,
                        next_at = excluded.next_at
                    WHERE step.state <> 'done'
            ), seen AS (
                INSERT INTO inbox (ce_id) SELECT jsonb_array_elements_text(events) FROM changed
            ), issued AS (
                INSERT INTO ticket (ticket_id, order_id, show_id, seat, label, code, created_at)
                SELECT new.ticket_id, changed.order_id, new.show_id, new.seat, new.label, new.code, new.created_at
                FROM changed, jsonb_populate_recordset(NULL::ticket, tickets) AS new
            ), revoked AS (
                UPDATE ticket SET state = 'revoked', revoked_at = changed.revoked_at FROM changed
                WHERE ticket.order_id = ANY($2) AND ticket.order_id = changed.order_id AND ticket.state = 'valid'
                    AND changed.revoked_at IS NOT NULL
            ), stored AS (
                -- Sorted, and so after all orders are locked: an order's messages are in the order of its commits.
                INSERT INTO outbox (partition, aggregate, subject, ce_id, ce_source, ce_type, ce_time,
                    correlation_id, causation_id, traceparent, msg_id, payload)
                SELECT new.partition, new.aggregate, new.subject, new.ce_id, new.ce_source, new.ce_type, new.ce_time,
                    new.correlation_id, new.causation_id, new.traceparent, new.msg_id, convert_to(new.payload, 'UTF8')
                FROM changed, jsonb_array_elements(messages) WITH ORDINALITY AS message (row, place),
                    jsonb_to_record(message.row) AS new (partition smallint, aggregate bigint, subject text, ce_id text,
                        ce_source text, ce_type text, ce_time timestamptz, correlation_id text, causation_id text,
                        traceparent text, msg_id text, payload text)
                ORDER BY place
            )
            SELECT order_id AS \"order_id!\",
                CASE WHEN told IS NOT NULL THEN pg_notify($3, told)::text END AS told,
                CASE WHEN relayed_elsewhere THEN pg_notify($4, '')::text END AS woken
            FROM changed",
            Json(&documents) as _,
            &ids,
            CHANNEL,
            stampede_outbox::CHANNEL,
        )
        .fetch_all(self.pool())
        .await?;
        Ok(written.into_iter().map(|row| OrderId::from_uuid(row.order_id)).collect())
    }
}

/// What a [`Write`] gives to the statement: an order as JSON, with the rows of other tables in it.
#[derive(Debug, Serialize)]
struct Document<'a> {
    order_id: Uuid,
    version: i64,
    state: &'static str,
    cancel_requested_at: Option<Timestamp>,
    settled_at: Option<Timestamp>,
    #[serde(flatten)]
    facts: Option<FactsDocument<'a>>,
    card_is_spent: bool,
    reply_status: Option<u16>,
    reply_body: Option<&'a str>,
    revoked_at: Option<Timestamp>,
    /// Whom the notification is about; nobody is told of what only this replica has to know.
    told: Option<String>,
    relayed_elsewhere: bool,
    steps: Vec<StepDocument<'a>>,
    events: &'a [String],
    tickets: Vec<TicketDocument<'a>>,
    messages: &'a [NewRow],
}

#[derive(Debug, Serialize)]
struct FactsDocument<'a> {
    show_id: Uuid,
    show_title: &'a str,
    venue: &'a str,
    starts_at: Timestamp,
    cancel_until: Timestamp,
    amount: i64,
    currency: String,
    quantity: u32,
    seats: &'a [SeatLabel],
}

#[derive(Debug, Serialize)]
struct StepDocument<'a> {
    step_id: Uuid,
    kind: &'static str,
    nth: usize,
    state: &'static str,
    outcome: Option<&'a str>,
    created_at: Timestamp,
    done_at: Option<Timestamp>,
    next_at: Timestamp,
}

#[derive(Debug, Serialize)]
struct TicketDocument<'a> {
    ticket_id: Uuid,
    show_id: Uuid,
    seat: Option<String>,
    label: &'a SeatLabel,
    code: &'a str,
    created_at: Timestamp,
}

impl<'a> Document<'a> {
    fn of(write: &'a Write) -> Self {
        let Write { draft, reply, change, tickets, revoke, messages, .. } = write;
        let order = &draft.order;
        Self {
            order_id: order.id.uuid(),
            version: draft.before.version,
            state: order.state.as_str(),
            cancel_requested_at: order.cancel_requested_at,
            settled_at: order.settled_at,
            facts: order.facts.as_ref().map(|facts| FactsDocument {
                show_id: facts.show_id.uuid(),
                show_title: &facts.show.title,
                venue: &facts.show.venue,
                starts_at: facts.show.starts_at,
                cancel_until: facts.show.cancel_until,
                amount: facts.total.amount(),
                currency: facts.total.currency().to_string(),
                quantity: facts.quantity,
                seats: &facts.seats,
            }),
            card_is_spent: order.card_is_spent(),
            reply_status: reply.as_ref().map(|reply| reply.status),
            reply_body: reply.as_ref().map(|reply| reply.body.as_str()),
            revoked_at: revoke.then_some(draft.now),
            told: change.is_for_all().then(|| order.id.to_string()),
            relayed_elsewhere: messages.iter().any(NewRow::is_held_elsewhere),
            steps: draft.changed_steps().map(|step| StepDocument::of(write, step)).collect(),
            events: &draft.events,
            tickets: tickets.iter().map(TicketDocument::of).collect(),
            messages,
        }
    }
}

impl<'a> StepDocument<'a> {
    fn of(write: &Write, step: &'a Step) -> Self {
        let before = write.draft.order.steps.iter().take_while(|earlier| earlier.id != step.id);
        let is_mail = matches!(step.kind.carrier(), Carrier::Notify(_));
        Self {
            step_id: step.id.uuid(),
            kind: step.kind.as_str(),
            nth: 1 + before.filter(|earlier| earlier.kind == step.kind).count(),
            state: step.state.as_str(),
            outcome: step.outcome.as_deref(),
            created_at: step.created_at,
            done_at: step.done_at,
            next_at: if is_mail { write.mails_next_at } else { write.next_at },
        }
    }
}

impl<'a> TicketDocument<'a> {
    fn of(ticket: &'a Ticket) -> Self {
        Self {
            ticket_id: ticket.id.uuid(),
            show_id: ticket.show_id.uuid(),
            seat: ticket.seat.seat_id.map(|seat| seat.to_string()),
            label: &ticket.seat,
            code: &ticket.code,
            created_at: ticket.created_at,
        }
    }
}
