//! Shows, as far as a lobby has to know them.

use stampede_contracts::event::{LobbyRules, ShowPublished};
use stampede_contracts::{ShowId, Timestamp};
use time::OffsetDateTime;

use super::{Store, unsigned};

/// A show as the lobby knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Show {
    /// The show.
    pub show_id: ShowId,
    /// From when on seats can be held: the moment of the draw.
    pub sale_opens_at: Timestamp,
    /// When it starts; nobody joins after.
    pub starts_at: Timestamp,
    /// How people are let in; `None` without a lobby.
    pub rules: Option<LobbyRules>,
    /// The draw's seed.
    pub seed: Vec<u8>,
    /// Whether the draw was held.
    pub drawn: bool,
    /// The highest number that was called.
    pub serving: u64,
}

impl Store {
    /// Takes a show as it is now; an older version than the one here changes nothing. `seed` is used for a new one.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn take_show(&self, show: &ShowPublished, seed: &[u8]) -> Result<(), sqlx::Error> {
        let rules = show.lobby.as_ref();
        sqlx::query!(
            "INSERT INTO show (show_id, version, sale_opens_at, starts_at, opens_at, rate_per_second, slots_max, slot_seconds, seed)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (show_id) DO UPDATE SET version = excluded.version, sale_opens_at = excluded.sale_opens_at,
                 starts_at = excluded.starts_at, opens_at = excluded.opens_at, rate_per_second = excluded.rate_per_second,
                 slots_max = excluded.slots_max, slot_seconds = excluded.slot_seconds
             WHERE show.version < excluded.version",
            show.show_id.uuid(),
            show.version,
            show.sale_opens_at.inner(),
            show.starts_at.inner(),
            rules.map(|rules| rules.opens_at.inner()),
            rules.and_then(|rules| i32::try_from(rules.rate_per_second).ok()),
            rules.and_then(|rules| i32::try_from(rules.slots_max).ok()),
            rules.and_then(|rules| i32::try_from(rules.slot_seconds).ok()),
            seed,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// A show.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn show(&self, show_id: ShowId) -> Result<Option<Show>, sqlx::Error> {
        let row = sqlx::query_as!(ShowRow, "SELECT show_id, sale_opens_at, starts_at, opens_at, rate_per_second, slots_max, slot_seconds, seed, drawn_at, serving
             FROM show WHERE show_id = $1", show_id.uuid());
        Ok(row.fetch_optional(&self.pool).await?.map(Show::from))
    }

    /// Shows with somebody in their lobby.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn busy_shows(&self) -> Result<Vec<Show>, sqlx::Error> {
        let rows = sqlx::query_as!(
            ShowRow,
            "SELECT show_id, sale_opens_at, starts_at, opens_at, rate_per_second, slots_max, slot_seconds, seed, drawn_at, serving
             FROM show WHERE opens_at IS NOT NULL AND EXISTS (
                 SELECT FROM place WHERE place.show_id = show.show_id AND state IN ('early', 'waiting', 'admitted'))"
        );
        Ok(rows.fetch_all(&self.pool).await?.into_iter().map(Show::from).collect())
    }
}

struct ShowRow {
    show_id: uuid::Uuid,
    sale_opens_at: OffsetDateTime,
    starts_at: OffsetDateTime,
    opens_at: Option<OffsetDateTime>,
    rate_per_second: Option<i32>,
    slots_max: Option<i32>,
    slot_seconds: Option<i32>,
    seed: Vec<u8>,
    drawn_at: Option<OffsetDateTime>,
    serving: i64,
}

impl From<ShowRow> for Show {
    fn from(row: ShowRow) -> Self {
        let positive = |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok());
        let rules = || {
            Some(LobbyRules {
                opens_at: row.opens_at?.into(),
                rate_per_second: positive(row.rate_per_second)?,
                slots_max: positive(row.slots_max)?,
                slot_seconds: positive(row.slot_seconds)?,
            })
        };
        Self {
            show_id: ShowId::from_uuid(row.show_id),
            sale_opens_at: row.sale_opens_at.into(),
            starts_at: row.starts_at.into(),
            rules: rules(),
            drawn: row.drawn_at.is_some(),
            serving: unsigned(row.serving),
            seed: row.seed,
        }
    }
}
