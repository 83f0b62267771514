//! Placing a hold: lock, choose, write. Two statements between `BEGIN` and `COMMIT`, and one more with a pass.

use std::time::Duration;

use sqlx::types::Json;
use stampede_contracts::event::BlockLayout;
use stampede_contracts::inventory::{HoldState, HoldView};
use stampede_contracts::signed::Pass;
use stampede_contracts::{BlockId, HoldId, Money, SessionId, Timestamp};
use stampede_postgres::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::hold::seats_of;
use super::{Store, StoreError, counts_of, numbers_of};
use crate::domain::block::{Block, Places, Seat};
use crate::domain::pick;
use crate::domain::show::{Section, Show};

/// One try to hold seats in one block.
#[derive(Debug, Clone)]
pub struct Attempt<'a> {
    /// Whose hold.
    pub session: SessionId,
    /// The client's key.
    pub key: &'a str,
    /// What the key was used for.
    pub fingerprint: &'a str,
    /// The show as it was read.
    pub show: &'a Show,
    /// The section.
    pub section: &'a Section,
    /// The block.
    pub block: &'a BlockLayout,
    /// The seats, or none: the best.
    pub seats: Option<&'a [u16]>,
    /// How many.
    pub quantity: u32,
    /// The price of all of them.
    pub total: Money,
    /// The pass that is used.
    pub pass: Option<&'a Pass>,
    /// How long the hold lasts.
    pub lasts: Duration,
}

/// What came of an [`Attempt`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// The seats are held.
    Held {
        /// The new hold.
        view: Box<HoldView>,
        /// The block after it.
        block: Block,
    },
    /// The block has not so many free seats, or not these.
    Full(Block),
    /// The key has a hold already; see [`Store::earlier`].
    Repeated,
    /// The session has a live hold of the show.
    Exists {
        /// That hold.
        hold: HoldId,
        /// Its time is over; only nobody swept it yet.
        over: bool,
    },
    /// The pass was closed, or its time is over.
    PassClosed,
}

impl Store {
    /// Tries to hold seats in one block. The time is asked when the block is locked: a pass must not serve longer
    /// because its holder stood in line.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub async fn place(
        &self,
        attempt: &Attempt<'_>,
        clock: &(dyn Fn() -> Timestamp + Send + Sync),
    ) -> Result<Placed, StoreError> {
        let mut tx = self.begin().await?;
        let placed = place(&mut tx, attempt, clock).await?;
        match placed {
            Placed::Held { .. } => tx.commit().await?,
            // Said at once, and not when the connection finds its way back into the pool: others wait for the block.
            _ => tx.rollback().await?,
        }
        Ok(placed)
    }
}

async fn place(
    tx: &mut PgConnection,
    attempt: &Attempt<'_>,
    clock: &(dyn Fn() -> Timestamp + Send + Sync),
) -> Result<Placed, StoreError> {
    if let Some(pass) = attempt.pass
        && !lock_open_pass(tx, pass, clock()).await?
    {
        return Ok(Placed::PassClosed);
    }
    let locked = lock(tx, attempt).await?;
    let now = clock();
    let mut block = match locked.block(attempt, now)? {
        Ok(block) => block,
        Err(obstacle) => return Ok(obstacle),
    };
    if attempt.pass.is_some_and(|pass| pass.expires_at <= now) {
        return Ok(Placed::PassClosed);
    }
    let Some(places) = choose(&block, attempt) else { return Ok(Placed::Full(block)) };
    block.take(&places, Seat::Free, Seat::Held)?;
    let view = view(attempt, &places, now);
    write(tx, attempt, &block, &places, &view, now).await?;
    Ok(Placed::Held { view: Box::new(view), block })
}

/// Locks the pass, so that it cannot be closed beside this hold, and says whether it is open.
async fn lock_open_pass(tx: &mut PgConnection, pass: &Pass, now: Timestamp) -> Result<bool, StoreError> {
    let closed_at = sqlx::query_scalar!(
        "INSERT INTO pass (pass_id, session, show, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (pass_id) DO UPDATE SET session = excluded.session
         RETURNING closed_at",
        pass.pass_id.uuid(),
        pass.session.uuid(),
        pass.show_id.uuid(),
        now.inner(),
    )
    .fetch_one(tx)
    .await?;
    Ok(closed_at.is_none())
}

/// A block under its lock, and what may speak against a hold.
struct Locked {
    free: i32,
    held: i32,
    attached: i32,
    sold: i32,
    blocked: i32,
    seats: Option<String>,
    version: i64,
    show_version: i64,
    repeated: Option<Uuid>,
    live: Option<Uuid>,
    live_block: Option<i64>,
    live_until: Option<OffsetDateTime>,
}

/// Locks the block.
///
/// The rows beside it are as they were when the statement began, perhaps before a wait for the lock. If one of them
/// was written meanwhile, the unique rows refuse what is inserted later, and the next attempt sees it.
async fn lock(tx: &mut PgConnection, attempt: &Attempt<'_>) -> Result<Locked, sqlx::Error> {
    sqlx::query_as!(
        Locked,
        r#"SELECT b.free, b.held, b.attached, b.sold, b.blocked, b.seats, b.version,
                  s.version AS show_version, r.hold AS "repeated?",
                  l.id AS "live?", l.block AS "live_block?",
                  coalesce(l.attached_until, l.expires_at) AS live_until
           FROM block b
           JOIN show s ON s.id = b.show
           LEFT JOIN hold_request r ON r.session = $2 AND r.key = $3
           LEFT JOIN hold l ON l.session = $2 AND l.show = b.show AND l.state IN ('held', 'attached')
           WHERE b.id = $1
           FOR UPDATE OF b"#,
        attempt.block.block_id.number(),
        attempt.session.uuid(),
        attempt.key,
    )
    .fetch_one(tx)
    .await
}

impl Locked {
    /// The block, if nothing speaks against the hold.
    fn block(self, attempt: &Attempt<'_>, now: Timestamp) -> Result<Result<Block, Placed>, StoreError> {
        if self.repeated.is_some() {
            return Ok(Err(Placed::Repeated));
        }
        if self.show_version != attempt.show.version {
            return Err(StoreError::Outdated);
        }
        if let (Some(id), Some(block)) = (self.live, self.live_block) {
            let over = self.live_until.is_some_and(|until| Timestamp::from(until) <= now);
            return Ok(Err(Placed::Exists {
                hold: HoldId::from_parts(BlockId::from_number(block), id),
                over,
            }));
        }
        let counts = counts_of([self.free, self.held, self.attached, self.sold, self.blocked]);
        Ok(Ok(Block { counts, seats: self.seats, version: self.version }))
    }
}

/// The places to hold, if the block has them.
fn choose(block: &Block, attempt: &Attempt<'_>) -> Option<Places> {
    let places = match (attempt.seats, &block.seats) {
        (Some(seats), _) => Places::Numbered(seats.to_vec()),
        (None, Some(letters)) => {
            Places::Numbered(pick::best(letters, &attempt.block.rows, attempt.quantity)?)
        }
        (None, None) => Places::Unnumbered(attempt.quantity),
    };
    block.are(&places, Seat::Free).then_some(places)
}

fn view(attempt: &Attempt<'_>, places: &Places, now: Timestamp) -> HoldView {
    HoldView {
        hold_id: HoldId::new(attempt.block.block_id),
        session: attempt.session,
        show_id: attempt.show.id,
        section_id: attempt.section.id,
        quantity: places.quantity(),
        seats: attempt.section.labels(attempt.block, places),
        total: attempt.total,
        expires_at: now + attempt.lasts,
        state: HoldState::Held,
        order_id: None,
        show: attempt.show.facts.clone(),
    }
}

async fn write(
    tx: &mut PgConnection,
    attempt: &Attempt<'_>,
    block: &Block,
    places: &Places,
    view: &HoldView,
    now: Timestamp,
) -> Result<(), StoreError> {
    let [free, held, ..] = numbers_of(&block.counts);
    sqlx::query!(
        "WITH changed AS (
             UPDATE block SET free = $2, held = $3, seats = $4, version = $5, dirty = true WHERE id = $1
         ), requested AS (
             INSERT INTO hold_request (session, key, fingerprint, hold, created_at) VALUES ($7, $8, $9, $6, $18)
         ), placed AS (
             INSERT INTO hold (id, block, session, show, section, quantity, seats, unit_price, currency, state,
                               expires_at, pass_id, placed, created_at)
             VALUES ($6, $1, $7, $10, $11, $12, $13, $14, $15, 'held', $16, $17, $19, $18)
         )
         INSERT INTO journal (block, version, hold, from_state, to_state, at)
         VALUES ($1, $5, $6, 'free', 'held', $18)",
        attempt.block.block_id.number(),
        free,
        held,
        block.seats,
        block.version,
        view.hold_id.uuid(),
        attempt.session.uuid(),
        attempt.key,
        attempt.fingerprint,
        attempt.show.id.uuid(),
        attempt.section.id.uuid(),
        i16::try_from(places.quantity()).unwrap_or(i16::MAX),
        seats_of(places) as _,
        attempt.section.price.amount(),
        attempt.section.price.currency().to_string(),
        view.expires_at.inner(),
        attempt.pass.map(|pass| pass.pass_id.uuid()),
        now.inner(),
        Json(view) as _,
    )
    .execute(tx)
    .await?;
    Ok(())
}
