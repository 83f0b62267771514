//! Passes: a row for each that was used or closed.

use stampede_bus::Message;
use stampede_contracts::event::PassClosed;
use stampede_contracts::inventory::{ClosePassOf, PassEnd};
use stampede_contracts::{BlockId, HoldId, PassId, ShowId, Timestamp};
use stampede_outbox::Stored;
use stampede_postgres::PgConnection;

use super::change::change;
use super::{Changed, Of, Store, StoreError};
use crate::domain::hold::Wish;

/// Attaching uses the pass up: closes the one that a held hold was made with. Says so if it was open until now.
pub(super) async fn close_pass_of(
    tx: &mut PgConnection,
    of: Of,
    now: Timestamp,
) -> Result<Option<PassClosed>, sqlx::Error> {
    let row = sqlx::query!(
        "UPDATE pass SET closed_at = $2
         WHERE closed_at IS NULL
           AND pass_id = (SELECT pass_id FROM hold WHERE id = $1 AND session = $3 AND state = 'held')
         RETURNING pass_id, show",
        of.hold.uuid(),
        now.inner(),
        of.session.map(|session| session.uuid()),
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| PassClosed {
        show_id: ShowId::from_uuid(row.show),
        pass_id: PassId::from_uuid(row.pass_id),
        closed_at: now,
    }))
}

impl Store {
    /// Tells the lobby in the transaction that used the pass up.
    pub(super) async fn announce(
        &self,
        tx: &mut PgConnection,
        closed: &PassClosed,
    ) -> Result<Stored, StoreError> {
        // A pass closes once, so its own name is as good an id as any.
        let message = Message::new(closed, closed.pass_id.to_string())?;
        Ok(self.outbox.add(tx, &closed.pass_id.to_string(), &[message]).await?)
    }

    /// Closes a pass on behalf of the lobby, and releases the hold that was made with it and is not ordered. Only the
    /// first closing has an effect; a repeated one is answered like it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub async fn close_pass(&self, of: &ClosePassOf, now: Timestamp) -> Result<PassEnd, StoreError> {
        let mut tx = self.begin().await?;
        let first = sqlx::query_scalar!(
            r#"INSERT INTO pass (pass_id, session, show, closed_at, created_at) VALUES ($1, $2, $3, $4, $4)
               ON CONFLICT (pass_id) DO UPDATE SET closed_at = excluded.closed_at WHERE pass.closed_at IS NULL
               RETURNING pass_id"#,
            of.pass_id.uuid(),
            of.session.uuid(),
            of.show.uuid(),
            now.inner(),
        )
        .fetch_optional(&mut *tx)
        .await?
        .is_some();
        if !first {
            tx.rollback().await?;
            return self.pass_end(of.pass_id).await;
        }
        let released = release(&mut tx, of, now).await?;
        if let Some(hold) = released {
            sqlx::query!(
                "UPDATE pass SET released_block = $2, released_hold = $3 WHERE pass_id = $1",
                of.pass_id.uuid(),
                hold.block().number(),
                hold.uuid(),
            )
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(PassEnd { closed_at: now, released })
    }

    async fn pass_end(&self, pass: PassId) -> Result<PassEnd, StoreError> {
        let row = sqlx::query!(
            r#"SELECT closed_at AS "closed_at!", released_block, released_hold FROM pass
               WHERE pass_id = $1 AND closed_at IS NOT NULL"#,
            pass.uuid(),
        )
        .fetch_one(&self.pool)
        .await?;
        let released = row.released_block.zip(row.released_hold);
        let released = released.map(|(block, hold)| HoldId::from_parts(BlockId::from_number(block), hold));
        Ok(PassEnd { closed_at: row.closed_at.into(), released })
    }
}

/// Releases the held hold that was made with the pass.
async fn release(
    tx: &mut PgConnection,
    of: &ClosePassOf,
    now: Timestamp,
) -> Result<Option<HoldId>, StoreError> {
    let held = sqlx::query!(
        "SELECT id, block FROM hold
         WHERE session = $1 AND show = $2 AND state IN ('held', 'attached') AND pass_id = $3",
        of.session.uuid(),
        of.show.uuid(),
        of.pass_id.uuid(),
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(held) = held else { return Ok(None) };
    let hold = HoldId::from_parts(BlockId::from_number(held.block), held.id);
    // It was read without a lock. If it was ordered meanwhile the release is refused, and the order keeps it.
    let of = Of { hold, session: Some(of.session), step: None };
    match change(tx, of, Wish::Release, now).await? {
        Changed::Done { written: true, .. } => Ok(Some(hold)),
        _ => Ok(None),
    }
}
