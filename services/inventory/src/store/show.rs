//! Shows: laid out once, kept up to date after that.

use sqlx::types::Json;
use stampede_contracts::event::{BlockLayout, RowSpan, Seating, SectionPlan, ShowPublished};
use stampede_contracts::inventory::ShowFacts;
use stampede_contracts::{BlockId, Money, SectionId, ShowId};
use stampede_postgres::Transaction;

use super::{Store, StoreError, counts_of};
use crate::domain::block::{Block, Seat};
use crate::domain::layout::{cut, shard};
use crate::domain::show::{Section, Show};

impl Store {
    /// Takes a show as catalog published it. The first version lays it out; a later one changes title, times and
    /// prices; what came before or twice changes nothing. Returns whether anything changed.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn take_show(&self, show: &ShowPublished) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let inserted = insert_show(&mut tx, show).await?;
        let changed = if inserted {
            let mut nth = 0;
            for (position, section) in (0_i16..).zip(&show.sections) {
                insert_section(&mut tx, show.show_id, position, section).await?;
                nth = insert_blocks(&mut tx, show.show_id, section, nth).await?;
            }
            true
        } else {
            update_show(&mut tx, show).await?
        };
        tx.commit().await?;
        Ok(changed)
    }

    /// The version of a show, if it is laid out.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn show_version(&self, id: ShowId) -> Result<Option<i64>, StoreError> {
        let query = sqlx::query_scalar!("SELECT version FROM show WHERE id = $1", id.uuid());
        Ok(query.fetch_optional(&self.pool).await?)
    }

    /// A show with its geometry, if it is laid out.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn show(&self, id: ShowId) -> Result<Option<Show>, StoreError> {
        // One snapshot, so that prices and version belong together.
        let mut tx = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let row = sqlx::query!(
            "SELECT version, title, venue, starts_at, sale_opens_at, cancel_until, needs_pass FROM show WHERE id = $1",
            id.uuid(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else {
            tx.rollback().await?;
            return Ok(None);
        };
        let facts = ShowFacts {
            title: row.title,
            venue: row.venue,
            starts_at: row.starts_at.into(),
            cancel_until: row.cancel_until.into(),
        };
        let sections = sections(&mut tx, id).await?;
        tx.commit().await?;
        Ok(Some(Show {
            id,
            version: row.version,
            facts,
            sale_opens_at: row.sale_opens_at.into(),
            needs_pass: row.needs_pass,
            sections,
        }))
    }

    /// The blocks of a section as they are now, unlocked.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn blocks(&self, section: &Section) -> Result<Vec<(BlockId, Block)>, StoreError> {
        let rows = sqlx::query!(
            "SELECT id, free, held, attached, sold, blocked, seats, version FROM block WHERE section = $1",
            section.id.uuid(),
        )
        .fetch_all(&self.pool)
        .await?;
        let read = rows.into_iter().map(|row| {
            let counts = counts_of([row.free, row.held, row.attached, row.sold, row.blocked]);
            (BlockId::from_number(row.id), Block { counts, seats: row.seats, version: row.version })
        });
        Ok(read.collect())
    }
}

async fn insert_show(tx: &mut Transaction, show: &ShowPublished) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "INSERT INTO show (id, version, title, venue, starts_at, sale_opens_at, cancel_until, needs_pass)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (id) DO NOTHING",
        show.show_id.uuid(),
        show.version,
        show.title,
        show.venue,
        show.starts_at.inner(),
        show.sale_opens_at.inner(),
        show.cancel_until.inner(),
        show.lobby.is_some(),
    )
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

async fn insert_section(
    tx: &mut Transaction,
    show: ShowId,
    position: i16,
    section: &SectionPlan,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO section (id, show, position, name, numbered, price, currency)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        section.section_id.uuid(),
        show.uuid(),
        position,
        section.name,
        matches!(section.seating, Seating::Rows(_)),
        section.price.amount(),
        section.price.currency().to_string(),
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Inserts the blocks of a section; `nth` counts the blocks of the show.
async fn insert_blocks(
    tx: &mut Transaction,
    show: ShowId,
    section: &SectionPlan,
    mut nth: usize,
) -> Result<usize, sqlx::Error> {
    let numbered = matches!(section.seating, Seating::Rows(_));
    for (position, piece) in (0_i32..).zip(cut(&section.seating)) {
        let letters = usize::try_from(piece.capacity).unwrap_or_default();
        let seats = numbered.then(|| char::from(Seat::Free.letter()).to_string().repeat(letters));
        sqlx::query!(
            "INSERT INTO block (show, section, position, shard, capacity, free, seats, rows)
             VALUES ($1, $2, $3, $4, $5, $5, $6, $7)",
            show.uuid(),
            section.section_id.uuid(),
            position,
            shard(show, nth),
            i32::try_from(piece.capacity).unwrap_or(i32::MAX),
            seats,
            Json(&piece.rows) as _,
        )
        .execute(&mut **tx)
        .await?;
        nth += 1;
    }
    Ok(nth)
}

/// Takes a later version. Geometry stays as it was laid out, whatever the new version says.
async fn update_show(tx: &mut Transaction, show: &ShowPublished) -> Result<bool, sqlx::Error> {
    let updated = sqlx::query!(
        "UPDATE show SET version = $2, title = $3, venue = $4, starts_at = $5, sale_opens_at = $6, cancel_until = $7,
             needs_pass = $8
         WHERE id = $1 AND version < $2",
        show.show_id.uuid(),
        show.version,
        show.title,
        show.venue,
        show.starts_at.inner(),
        show.sale_opens_at.inner(),
        show.cancel_until.inner(),
        show.lobby.is_some(),
    )
    .execute(&mut **tx)
    .await?;
    if updated.rows_affected() == 0 {
        return Ok(false);
    }
    for section in &show.sections {
        sqlx::query!(
            "UPDATE section SET name = $3, price = $4, currency = $5 WHERE id = $1 AND show = $2",
            section.section_id.uuid(),
            show.show_id.uuid(),
            section.name,
            section.price.amount(),
            section.price.currency().to_string(),
        )
        .execute(&mut **tx)
        .await?;
    }
    Ok(true)
}

async fn sections(tx: &mut Transaction, show: ShowId) -> Result<Vec<Section>, StoreError> {
    let rows = sqlx::query!(
        "SELECT id, name, numbered, price, currency FROM section WHERE show = $1 ORDER BY position",
        show.uuid(),
    )
    .fetch_all(&mut **tx)
    .await?;
    let mut blocks = blocks(tx, show).await?;
    rows.into_iter()
        .map(|row| {
            let id = SectionId::from_uuid(row.id);
            let (own, others) = blocks.drain(..).partition(|block| block.section_id == id);
            blocks = others;
            let currency = row.currency.parse().map_err(|_| StoreError::Unreadable("currency"))?;
            let price = Money::try_new(row.price, currency).map_err(|_| StoreError::Unreadable("price"))?;
            Ok(Section { id, name: row.name, price, numbered: row.numbered, blocks: own })
        })
        .collect()
}

async fn blocks(tx: &mut Transaction, show: ShowId) -> Result<Vec<BlockLayout>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT id, section, shard, capacity, rows AS "rows: Json<Vec<RowSpan>>"
           FROM block WHERE show = $1 ORDER BY section, position"#,
        show.uuid(),
    )
    .fetch_all(&mut **tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(BlockLayout {
                block_id: BlockId::from_number(row.id),
                section_id: SectionId::from_uuid(row.section),
                shard: row.shard.unsigned_abs(),
                capacity: row.capacity.unsigned_abs(),
                rows: row.rows.0,
            })
        })
        .collect()
}
