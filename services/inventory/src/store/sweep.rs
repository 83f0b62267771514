//! Ending holds whose time is over.

use std::collections::BTreeMap;

use stampede_contracts::inventory::HoldState;
use stampede_contracts::{BlockId, OrderId, Timestamp};
use stampede_postgres::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::hold::{places_of, state_of};
use super::{Store, StoreError, counts_of, numbers_of};
use crate::domain::block::{Block, Seat};
use crate::domain::hold::{Hold, Next, Outcome, Wish};

/// Holds of one block whose time seems to be over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The block.
    pub block: BlockId,
    /// The holds, as stored.
    pub holds: Vec<Uuid>,
}

impl Store {
    /// Live holds whose time is over, the most overdue first and at most `limit`, by block; not those of blocks `without`
    /// which it is done.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn due(&self, now: Timestamp, limit: i64, without: &[i64]) -> Result<Vec<Due>, StoreError> {
        let rows = sqlx::query!(
            "SELECT id, block FROM hold
             WHERE state IN ('held', 'attached') AND coalesce(attached_until, expires_at) <= $1
               AND block <> ALL($3)
             ORDER BY coalesce(attached_until, expires_at) LIMIT $2",
            now.inner(),
            limit,
            without,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut blocks: BTreeMap<BlockId, Vec<Uuid>> = BTreeMap::new();
        for row in rows {
            blocks.entry(BlockId::from_number(row.block)).or_default().push(row.id);
        }
        Ok(blocks.into_iter().map(|(block, holds)| Due { block, holds }).collect())
    }

    /// When the next live hold expires, not counting those of blocks `without` which it is done.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn next_due(&self, without: &[i64]) -> Result<Option<Timestamp>, StoreError> {
        let next = sqlx::query_scalar!(
            "SELECT coalesce(attached_until, expires_at) FROM hold WHERE state IN ('held', 'attached') AND block <> ALL($1)
             ORDER BY coalesce(attached_until, expires_at) LIMIT 1",
            without,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(next.flatten().map(Timestamp::from))
    }

    /// Ends those holds of a block whose time is over, in one transaction, and says how many.
    ///
    /// It stands in line for the block like everybody else. With `SKIP LOCKED` a block in such demand that it is never
    /// free for a moment would keep its expired holds, just when others wait for them.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub async fn expire(&self, due: &Due, now: Timestamp) -> Result<usize, StoreError> {
        let mut tx = self.begin().await?;
        let mut block = lock(&mut tx, due.block).await?;
        let ended = end(&mut tx, due, &mut block, now).await?;
        if ended.is_empty() {
            tx.rollback().await?;
        } else {
            write(&mut tx, due.block, &block, &ended, now).await?;
            tx.commit().await?;
        }
        Ok(ended.len())
    }
}

async fn lock(tx: &mut PgConnection, block: BlockId) -> Result<Block, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT free, held, attached, sold, blocked, seats, version FROM block WHERE id = $1 FOR UPDATE",
        block.number(),
    )
    .fetch_one(tx)
    .await?;
    let counts = counts_of([row.free, row.held, row.attached, row.sold, row.blocked]);
    Ok(Block { counts, seats: row.seats, version: row.version })
}

/// A hold that ends, and the version of its block that says so.
struct Ended {
    hold: Uuid,
    version: i64,
    from: Seat,
    order: Option<OrderId>,
}

/// Reads the holds again, now that the block is locked, and takes their seats back.
async fn end(
    tx: &mut PgConnection,
    due: &Due,
    block: &mut Block,
    now: Timestamp,
) -> Result<Vec<Ended>, StoreError> {
    let rows = sqlx::query!(
        "SELECT id, quantity, seats, state, expires_at, order_id, attached_until FROM hold
         WHERE id = ANY($1) AND block = $2",
        &due.holds,
        due.block.number(),
    )
    .fetch_all(tx)
    .await?;
    let mut ended = Vec::with_capacity(rows.len());
    for row in rows {
        let hold = Hold {
            state: state_of(&row.state)?,
            order: row.order_id.map(OrderId::from_uuid),
            expires_at: row.expires_at.into(),
            attached_until: row.attached_until.map(Timestamp::from),
            let_go: Vec::new(),
            places: places_of(row.quantity, row.seats),
        };
        if let Ok(Outcome::Changed(Next { from, to, order, state: HoldState::Freed, .. })) =
            hold.decide(Wish::Expire, now)
        {
            block.take(&hold.places, from, to)?;
            ended.push(Ended { hold: row.id, version: block.version, from, order });
        }
    }
    Ok(ended)
}

async fn write(
    tx: &mut PgConnection,
    id: BlockId,
    block: &Block,
    ended: &[Ended],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let [free, held, attached, _] = numbers_of(&block.counts);
    let holds: Vec<Uuid> = ended.iter().map(|ended| ended.hold).collect();
    let versions: Vec<i64> = ended.iter().map(|ended| ended.version).collect();
    let from: Vec<String> = ended.iter().map(|ended| ended.from.as_str().to_owned()).collect();
    let orders: Vec<Option<Uuid>> = ended.iter().map(|ended| ended.order.map(|order| order.uuid())).collect();
    sqlx::query!(
        "WITH changed AS (
             UPDATE block SET free = $2, held = $3, attached = $4, seats = $5, version = $6, dirty = true WHERE id = $1
         ), freed AS (
             UPDATE hold SET state = 'freed', attached_until = NULL WHERE id = ANY($7)
         )
         INSERT INTO journal (block, version, hold, from_state, to_state, order_id, at)
         SELECT $1, version, hold, from_state, 'free', order_id, $11
         FROM unnest($7::uuid[], $8::bigint[], $9::text[], $10::uuid[]) AS t (hold, version, from_state, order_id)",
        id.number(),
        free,
        held,
        attached,
        block.seats,
        block.version,
        &holds,
        &versions,
        &from,
        &orders as _,
        OffsetDateTime::from(now),
    )
    .execute(tx)
    .await?;
    Ok(())
}
