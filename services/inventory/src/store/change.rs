//! Changing a hold: lock block and hold, decide, write. Two statements between `BEGIN` and `COMMIT`, and one more to
//! attach.

use sqlx::types::Json;
use stampede_contracts::inventory::HoldView;
use stampede_contracts::{HoldId, SessionId, StepId, Timestamp};
use stampede_postgres::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::hold::{HoldRow, StoredHold, word_of};
use super::pass::close_pass_of;
use super::{Store, StoreError, counts_of, numbers_of};
use crate::domain::block::Block;
use crate::domain::hold::{Next, Outcome, Refusal, Wish};

/// Which hold, and who asks.
#[derive(Debug, Clone, Copy)]
pub struct Of {
    /// The hold.
    pub hold: HoldId,
    /// Must be the hold's own; none where the wish names the order instead.
    pub session: Option<SessionId>,
    /// The step that asks.
    pub step: Option<StepId>,
}

/// What came of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The hold is as wished, or the wish does not concern it.
    Done {
        /// The hold as others see it now.
        view: Box<HoldView>,
        /// Whether this call wrote anything.
        written: bool,
    },
    /// It stays as it is.
    Refused(Refusal),
    /// There is no such hold for this session.
    NotFound,
}

impl Store {
    /// Does with a hold what somebody wishes, in one transaction with its journal row.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub async fn change(&self, of: Of, wish: Wish, now: Timestamp) -> Result<Changed, StoreError> {
        let mut tx = self.begin().await?;
        // Before the block, because that is the order of locks. A rollback opens it again.
        let closed = match wish {
            Wish::Attach(..) => close_pass_of(&mut tx, of, now).await?,
            _ => None,
        };
        let changed = change(&mut tx, of, wish, now).await?;
        if !matches!(changed, Changed::Done { written: true, .. }) {
            tx.rollback().await?;
            return Ok(changed);
        }
        let stored = match closed {
            Some(closed) => Some(self.announce(&mut tx, &closed).await?),
            None => None,
        };
        tx.commit().await?;
        if let Some(stored) = stored {
            stored.nudge();
        }
        Ok(changed)
    }
}

/// The same in the caller's transaction, which is to be rolled back when nothing was written.
pub(super) async fn change(
    tx: &mut PgConnection,
    of: Of,
    wish: Wish,
    now: Timestamp,
) -> Result<Changed, StoreError> {
    let Some((block, mut hold)) = lock(tx, of).await? else { return Ok(Changed::NotFound) };
    let written = match hold.hold.decide(wish, now) {
        Ok(Outcome::Changed(next)) => {
            write(tx, of, block, &hold, &next, now).await?;
            hold.apply(&next);
            true
        }
        Ok(Outcome::LetGo(order)) => {
            let (id, order) = (of.hold.uuid(), order.uuid());
            sqlx::query!("UPDATE hold SET let_go = let_go || $2::uuid WHERE id = $1", id, order)
                .execute(tx)
                .await?;
            true
        }
        Ok(Outcome::Nothing) => false,
        Err(refusal) => return Ok(Changed::Refused(refusal)),
    };
    Ok(Changed::Done { view: Box::new(hold.view(now)), written })
}

struct LockedRow {
    free: i32,
    held: i32,
    attached: i32,
    sold: i32,
    blocked: i32,
    letters: Option<String>,
    version: i64,
    quantity: i16,
    seats: Option<Vec<i16>>,
    state: String,
    expires_at: OffsetDateTime,
    order_id: Option<Uuid>,
    attached_until: Option<OffsetDateTime>,
    let_go: Vec<Uuid>,
    placed: Json<HoldView>,
}

/// Locks the block and then the hold, in the order in which `FOR UPDATE` names them. Both are locked so that both are
/// read as they are after a wait, and not as they were when the statement began.
async fn lock(tx: &mut PgConnection, of: Of) -> Result<Option<(Block, StoredHold)>, StoreError> {
    let row = sqlx::query_as!(
        LockedRow,
        r#"SELECT b.free, b.held, b.attached, b.sold, b.blocked, b.seats AS letters, b.version,
                  h.quantity, h.seats, h.state, h.expires_at, h.order_id, h.attached_until, h.let_go,
                  h.placed AS "placed: Json<HoldView>"
           FROM block b JOIN hold h ON h.block = b.id
           WHERE b.id = $1 AND h.id = $2 AND ($3::uuid IS NULL OR h.session = $3)
           FOR UPDATE OF b, h"#,
        of.hold.block().number(),
        of.hold.uuid(),
        of.session.map(|session| session.uuid()),
    )
    .fetch_optional(tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let counts = counts_of([row.free, row.held, row.attached, row.sold, row.blocked]);
    let block = Block { counts, seats: row.letters, version: row.version };
    let hold = HoldRow {
        quantity: row.quantity,
        seats: row.seats,
        state: row.state,
        expires_at: row.expires_at,
        order_id: row.order_id,
        attached_until: row.attached_until,
        let_go: row.let_go,
        placed: row.placed,
    };
    Ok(Some((block, hold.try_into()?)))
}

async fn write(
    tx: &mut PgConnection,
    of: Of,
    mut block: Block,
    hold: &StoredHold,
    next: &Next,
    now: Timestamp,
) -> Result<(), StoreError> {
    block.take(&hold.hold.places, next.from, next.to)?;
    let [free, held, attached, sold] = numbers_of(&block.counts);
    sqlx::query!(
        "WITH changed AS (
             UPDATE block SET free = $2, held = $3, attached = $4, sold = $5, seats = $6, version = $7, dirty = true
             WHERE id = $1
         ), moved AS (
             UPDATE hold SET state = $9, order_id = $10, attached_until = $11, let_go = let_go || $12::uuid[]
             WHERE id = $8
         )
         INSERT INTO journal (block, version, hold, from_state, to_state, order_id, step, at)
         VALUES ($1, $7, $8, $13, $14, $15, $16, $17)",
        of.hold.block().number(),
        free,
        held,
        attached,
        sold,
        block.seats,
        block.version,
        of.hold.uuid(),
        word_of(next.state),
        next.order.map(|order| order.uuid()),
        next.attached_until.map(OffsetDateTime::from),
        &next.let_go.map(|order| order.uuid()).into_iter().collect::<Vec<Uuid>>(),
        next.from.as_str(),
        next.to.as_str(),
        next.order.or(hold.hold.order).map(|order| order.uuid()),
        of.step.map(|step| step.uuid()),
        now.inner(),
    )
    .execute(tx)
    .await?;
    Ok(())
}
