//! What others still have to be told: marks in the tables, cleared when the message is stored in its stream.

use stampede_contracts::event::BlockState;
use stampede_contracts::{BlockId, SectionId, ShowId, Timestamp};
use uuid::Uuid;

use super::{Store, StoreError};

impl Store {
    /// Blocks to be published, at most `limit`, behind block `after` in the order of their numbers.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn dirty_blocks(
        &self,
        after: Option<BlockId>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<BlockState>, StoreError> {
        let rows = sqlx::query_as!(
            BlockRow,
            "SELECT id, show, section, capacity, free, held, attached, sold, blocked, seats, version
             FROM block WHERE dirty AND id > $1 ORDER BY id LIMIT $2",
            after.map_or(0, |block| block.number()),
            limit_of(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| row.state(now)).collect())
    }

    /// All blocks of a show.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn blocks_of(&self, show: ShowId, now: Timestamp) -> Result<Vec<BlockState>, StoreError> {
        let rows = sqlx::query_as!(
            BlockRow,
            "SELECT id, show, section, capacity, free, held, attached, sold, blocked, seats, version
             FROM block WHERE show = $1",
            show.uuid(),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| row.state(now)).collect())
    }

    /// Shows that are laid out and not over.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn shows_to_come(&self, now: Timestamp) -> Result<Vec<ShowId>, StoreError> {
        let shows = sqlx::query_scalar!(
            "SELECT id FROM show WHERE history <> 'gone' AND starts_at > $1 AND layout_published",
            now.inner(),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(shows.into_iter().map(ShowId::from_uuid).collect())
    }

    /// Notes which versions were published; a block that changed since stays marked, and one that is up to date is not
    /// written. Blocks that are locked are left out and so published once more: waiting for them would make their buyers
    /// wait.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn blocks_published(&self, published: &[(BlockId, i64)]) -> Result<(), StoreError> {
        let (blocks, versions): (Vec<i64>, Vec<i64>) =
            published.iter().map(|(block, version)| (block.number(), *version)).unzip();
        sqlx::query!(
            "WITH unlocked AS (
                 SELECT block.id, p.version FROM unnest($1::bigint[], $2::bigint[]) AS p (id, version)
                 JOIN block ON block.id = p.id AND (dirty OR published_version <> p.version)
                 ORDER BY block.id FOR UPDATE OF block SKIP LOCKED
             )
             UPDATE block SET published_version = unlocked.version, dirty = block.version > unlocked.version
             FROM unlocked WHERE block.id = unlocked.id",
            &blocks,
            &versions,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Shows whose layout is to be published, at most `limit`, behind show `after` in the order of their ids: their blocks
    /// are in the stream already.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn unpublished_layouts(
        &self,
        after: Option<ShowId>,
        limit: i64,
    ) -> Result<Vec<ShowId>, StoreError> {
        let shows = sqlx::query_scalar!(
            "SELECT id FROM show WHERE NOT layout_published AND ($2::uuid IS NULL OR id > $2)
                 AND NOT EXISTS (SELECT FROM block WHERE block.show = show.id AND published_version = 0)
             ORDER BY id LIMIT $1",
            limit,
            after.map(|show| show.uuid()),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(shows.into_iter().map(ShowId::from_uuid).collect())
    }

    /// Notes that a layout was published.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn layout_published(&self, show: ShowId) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE show SET layout_published = true WHERE id = $1 AND NOT layout_published",
            show.uuid()
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The generation of a stream that was filled from here.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn generation(&self, stream: &str) -> Result<Option<String>, StoreError> {
        let query = sqlx::query_scalar!("SELECT generation FROM meta WHERE stream = $1", stream);
        Ok(query.fetch_optional(&self.pool).await?)
    }

    /// Marks up to `limit` blocks behind `after` as never published, and returns the last of them. Some at a time, so
    /// that no buyer waits for all of them.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn forget_blocks(
        &self,
        after: Option<BlockId>,
        limit: usize,
    ) -> Result<Option<BlockId>, StoreError> {
        let last = sqlx::query_scalar!(
            "WITH forgotten AS (
                 UPDATE block SET published_version = 0, dirty = true
                 WHERE id IN (SELECT id FROM block WHERE id > $1 ORDER BY id LIMIT $2 FOR UPDATE)
                 RETURNING id
             )
             SELECT max(id) FROM forgotten",
            after.map_or(0, |block| block.number()),
            limit_of(limit),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(last.map(BlockId::from_number))
    }

    /// Marks every layout to be published.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn forget_layouts(&self) -> Result<(), StoreError> {
        sqlx::query!("UPDATE show SET layout_published = false WHERE layout_published")
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// A show whose layout was published, if there is one: the latest, because old ones are the first to go.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn published_layout(&self) -> Result<Option<ShowId>, StoreError> {
        let show = sqlx::query_scalar!("SELECT id FROM show WHERE layout_published ORDER BY id DESC LIMIT 1")
            .fetch_optional(&self.pool)
            .await?;
        Ok(show.map(ShowId::from_uuid))
    }

    /// Notes which generation of a stream was filled from here.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn note_generation(&self, stream: &str, generation: &str) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO meta (stream, generation) VALUES ($1, $2)
             ON CONFLICT (stream) DO UPDATE SET generation = excluded.generation",
            stream,
            generation,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// A block as it is stored, without what never changes.
struct BlockRow {
    id: i64,
    show: Uuid,
    section: Uuid,
    capacity: i32,
    free: i32,
    held: i32,
    attached: i32,
    sold: i32,
    blocked: i32,
    seats: Option<String>,
    version: i64,
}

impl BlockRow {
    fn state(self, now: Timestamp) -> BlockState {
        BlockState {
            show_id: ShowId::from_uuid(self.show),
            section_id: SectionId::from_uuid(self.section),
            block_id: BlockId::from_number(self.id),
            version: self.version,
            capacity: self.capacity.unsigned_abs(),
            free: self.free.unsigned_abs(),
            held: self.held.unsigned_abs(),
            attached: self.attached.unsigned_abs(),
            sold: self.sold.unsigned_abs(),
            blocked: self.blocked.unsigned_abs(),
            seats: self.seats,
            as_of: now,
        }
    }
}

fn limit_of(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
