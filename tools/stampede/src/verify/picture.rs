//! Orders and holds as their databases have them, in memory: no query can join what lies in two databases.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow};
use futures::TryStreamExt;
use stampede_contracts::api::OrderState;
use stampede_contracts::inventory::HoldState;
use stampede_contracts::{BlockId, HoldId, Money, OrderId, SeatId, SessionId, ShowId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::snapshot::Snapshots;

/// All orders.
pub(super) type Orders = HashMap<OrderId, Order>;
/// All holds, by the part of their id that is unique.
pub(super) type Holds = HashMap<Uuid, Hold>;

/// What the owners of shows that are over for long keep no history of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Forgotten {
    /// Blocks whose holds are not kept.
    pub(super) blocks: HashSet<BlockId>,
    /// Shows whose places in the lobby are not kept.
    pub(super) lines: HashSet<Uuid>,
}

pub(super) async fn forgotten(now: &mut Snapshots) -> Result<Forgotten> {
    let blocks: Vec<i64> = sqlx::query_scalar(
        "SELECT block.id FROM block JOIN show ON show.id = block.show WHERE show.history <> 'kept'",
    )
    .fetch_all(&mut *now.inventory)
    .await?;
    let lines: Vec<Uuid> = sqlx::query_scalar("SELECT show_id FROM show WHERE history <> 'kept'")
        .fetch_all(&mut *now.lobby)
        .await?;
    Ok(Forgotten {
        blocks: blocks.into_iter().map(BlockId::from_number).collect(),
        lines: lines.into_iter().collect(),
    })
}

/// An order with its tickets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) id: OrderId,
    pub(super) session: SessionId,
    pub(super) hold: HoldId,
    pub(super) state: OrderState,
    /// Whether it came to rest before the cutoff, so that every other database knows what it knows.
    pub(super) is_settled: bool,
    /// Absent until the hold was attached.
    pub(super) price: Option<Money>,
    pub(super) quantity: i32,
    /// Valid ones.
    pub(super) tickets: i64,
    /// Places that have a valid ticket: a seat counts once.
    pub(super) places: i64,
    /// Numbered seats with a valid ticket.
    pub(super) seats: Vec<String>,
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) id: HoldId,
    pub(super) session: SessionId,
    pub(super) show: ShowId,
    pub(super) state: HoldState,
    pub(super) order: Option<OrderId>,
    pub(super) price: Money,
    pub(super) quantity: i32,
    /// Indices; empty for general admission.
    pub(super) seats: Vec<i16>,
    pub(super) pass: Option<Uuid>,
    pub(super) created_at: OffsetDateTime,
}

impl Hold {
    /// Whether this seat is one of its own.
    pub(super) fn has(&self, seat: &str) -> bool {
        seat.parse().is_ok_and(|SeatId { block, index }| {
            block == self.id.block() && self.seats.iter().any(|own| own.unsigned_abs() == index)
        })
    }
}

#[derive(sqlx::FromRow)]
struct OrderRow {
    order_id: Uuid,
    session_id: Uuid,
    hold_block: i64,
    hold_id: Uuid,
    state: String,
    is_settled: bool,
    amount: Option<i64>,
    currency: Option<String>,
    quantity: Option<i32>,
    tickets: i64,
    places: i64,
    seats: Option<Vec<String>>,
}

pub(super) async fn orders(now: &mut Snapshots) -> Result<Orders> {
    let mut rows = sqlx::query_as::<_, OrderRow>(
        "SELECT order_id, session_id, hold_block, hold_id, state, coalesce(settled_at < $1, false) AS is_settled,
            amount, currency, quantity, coalesce(tickets, 0) AS tickets, coalesce(places, 0) AS places, valid.seats
         FROM orders LEFT JOIN (
            SELECT order_id, count(*) AS tickets, count(DISTINCT coalesce(seat, ticket_id::text)) AS places,
                array_agg(seat) FILTER (WHERE seat IS NOT NULL) AS seats
            FROM ticket WHERE state = 'valid' GROUP BY order_id
         ) AS valid USING (order_id)",
    )
    .bind(now.cutoff)
    .fetch(&mut *now.orders);
    let mut orders = HashMap::new();
    while let Some(row) = rows.try_next().await? {
        let order = row.order()?;
        orders.insert(order.id, order);
    }
    Ok(orders)
}

impl OrderRow {
    fn order(self) -> Result<Order> {
        let price =
            self.amount.zip(self.currency).map(|(amount, currency)| money(amount, &currency)).transpose()?;
        Ok(Order {
            id: OrderId::from_uuid(self.order_id),
            session: SessionId::from_uuid(self.session_id),
            hold: HoldId::from_parts(BlockId::from_number(self.hold_block), self.hold_id),
            state: OrderState::from_str(&self.state).map_err(|()| anyhow!("an order is {}", self.state))?,
            is_settled: self.is_settled,
            price,
            quantity: self.quantity.unwrap_or(0),
            tickets: self.tickets,
            places: self.places,
            seats: self.seats.unwrap_or_default(),
        })
    }
}

#[derive(sqlx::FromRow)]
struct HoldRow {
    id: Uuid,
    block: i64,
    session: Uuid,
    show: Uuid,
    state: String,
    order_id: Option<Uuid>,
    unit_price: i64,
    currency: String,
    quantity: i16,
    seats: Option<Vec<i16>>,
    pass_id: Option<Uuid>,
    created_at: OffsetDateTime,
}

pub(super) async fn holds(now: &mut Snapshots) -> Result<Holds> {
    let mut rows = sqlx::query_as::<_, HoldRow>(
        "SELECT id, block, session, show, state, order_id, unit_price, currency, quantity, seats, pass_id, created_at
         FROM hold",
    )
    .fetch(&mut *now.inventory);
    let mut holds = HashMap::new();
    while let Some(row) = rows.try_next().await? {
        holds.insert(row.id, row.hold()?);
    }
    Ok(holds)
}

impl HoldRow {
    fn hold(self) -> Result<Hold> {
        Ok(Hold {
            id: HoldId::from_parts(BlockId::from_number(self.block), self.id),
            session: SessionId::from_uuid(self.session),
            show: ShowId::from_uuid(self.show),
            state: hold_state(&self.state)?,
            order: self.order_id.map(OrderId::from_uuid),
            price: money(self.unit_price.saturating_mul(self.quantity.into()), &self.currency)?,
            quantity: self.quantity.into(),
            seats: self.seats.unwrap_or_default(),
            pass: self.pass_id,
            created_at: self.created_at,
        })
    }
}

fn money(amount: i64, currency: &str) -> Result<Money> {
    let money = currency.parse().and_then(|currency| Money::try_new(amount, currency));
    money.with_context(|| format!("{amount} {currency} is no price"))
}

fn hold_state(word: &str) -> Result<HoldState> {
    match word {
        "held" => Ok(HoldState::Held),
        "attached" => Ok(HoldState::Attached),
        "sold" => Ok(HoldState::Sold),
        "freed" => Ok(HoldState::Freed),
        other => Err(anyhow!("a hold is {other}")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A confirmed order for two numbered seats, and the hold that was sold to it.
    pub(in crate::verify) fn purchase() -> (Order, Hold) {
        let (id, session, block) = (OrderId::new(), SessionId::new(), BlockId::from_number(7));
        let price = money(5_000, "EUR").unwrap();
        let hold = Hold {
            id: HoldId::new(block),
            session,
            show: ShowId::new(),
            state: HoldState::Sold,
            order: Some(id),
            price,
            quantity: 2,
            seats: vec![3, 4],
            pass: None,
            created_at: OffsetDateTime::UNIX_EPOCH,
        };
        let order = Order {
            id,
            session,
            hold: hold.id,
            state: OrderState::Confirmed,
            is_settled: true,
            price: Some(price),
            quantity: 2,
            tickets: 2,
            places: 2,
            seats: vec!["b7-3".to_owned(), "b7-4".to_owned()],
        };
        (order, hold)
    }

    #[test]
    fn a_hold_has_its_own_seats_only() {
        let (_, hold) = purchase();
        assert!(hold.has("b7-3") && hold.has("b7-4"));
        for other in ["b7-5", "b8-3", "", "b7"] {
            assert!(!hold.has(other), "{other}");
        }
    }
}
