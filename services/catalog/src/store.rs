//! The catalog's database. One method a use case.

use serde::Deserialize;
use serde_json::Value;
use sqlx::{migrate::Migrator, types::Json};
use stampede_bus::Message;
use stampede_contracts::{
    Money, SectionId, ShowId, Timestamp, VenueId,
    api::{NewShow, Venue},
    event::{LobbyRules, Seating, SectionPlan},
};
use stampede_outbox::Outbox;
use stampede_postgres::{PgConnection, PgPool};
use time::OffsetDateTime;

use crate::domain::{ShowRecord, cheapest};

/// The schema.
pub static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// The database could not answer, or holds what it should not.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database.
    #[error("the database did not answer as it should")]
    Database(#[from] sqlx::Error),
    /// A stored value that breaks a rule of the domain.
    #[error("stored data is not valid: {0}")]
    Corrupt(String),
}

/// What became of a request to create a show.
#[derive(Debug, Clone, PartialEq)]
pub enum Created {
    /// It is new.
    New(ShowRecord),
    /// The same request came before.
    Before(ShowRecord),
    /// Another show goes by this slug.
    SlugTaken,
}

/// Where a page of shows begins: after this show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Start of the last show of the page before.
    pub starts_at: Timestamp,
    /// The show itself.
    pub show_id: ShowId,
}

/// The catalog's database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    outbox: Outbox,
}

struct ShowRow {
    show_id: uuid::Uuid,
    slug: String,
    title: String,
    venue_id: uuid::Uuid,
    venue_name: String,
    venue_city: String,
    starts_at: OffsetDateTime,
    sale_opens_at: OffsetDateTime,
    cancel_until: OffsetDateTime,
    currency: String,
    lobby: Option<Value>,
    version: i64,
}

struct SectionRow {
    show_id: uuid::Uuid,
    section_id: uuid::Uuid,
    name: String,
    price: i64,
    seating: Value,
}

impl Store {
    /// On a migrated database.
    pub fn new(pool: PgPool, outbox: Outbox) -> Self {
        Self { pool, outbox }
    }

    /// Creates a show once by its slug, and publishes it, in one transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create(&self, show: ShowRecord, request: &NewShow) -> Result<Created, StoreError> {
        let request = serde_json::to_value(request).map_err(corrupt)?;
        let mut tx = self.pool.begin().await?;
        let venue_id = sqlx::query_scalar!(
            "INSERT INTO venue (venue_id, name, city) VALUES ($1, $2, $3)
             ON CONFLICT (name, city) DO UPDATE SET name = excluded.name RETURNING venue_id",
            show.venue.venue_id.uuid(),
            show.venue.name,
            show.venue.city,
        )
        .fetch_one(&mut *tx)
        .await?;
        let inserted = sqlx::query!(
            "INSERT INTO show (show_id, slug, title, venue_id, starts_at, sale_opens_at, cancel_until, currency, lobby, version, request)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (slug) DO NOTHING",
            show.show_id.uuid(),
            show.slug,
            show.title,
            venue_id,
            show.starts_at.inner(),
            show.sale_opens_at.inner(),
            show.cancel_until.inner(),
            show.currency.as_str(),
            show.lobby.as_ref().map(Json) as _,
            show.version,
            request,
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if inserted == 0 {
            tx.rollback().await?;
            return self.created_before(&show.slug, &request).await;
        }
        insert_sections(&mut tx, &show).await?;
        let show =
            ShowRecord { venue: Venue { venue_id: VenueId::from_uuid(venue_id), ..show.venue }, ..show };
        self.publish(&mut tx, &show, message(&show)?).await?;
        tx.commit().await?;
        self.outbox.nudge();
        Ok(Created::New(show))
    }

    async fn created_before(&self, slug: &str, request: &Value) -> Result<Created, StoreError> {
        let row = sqlx::query!("SELECT show_id, request FROM show WHERE slug = $1", slug)
            .fetch_one(&self.pool)
            .await?;
        if row.request != *request {
            return Ok(Created::SlugTaken);
        }
        let show = self.show(ShowId::from_uuid(row.show_id)).await?;
        show.map(Created::Before).ok_or_else(|| StoreError::Corrupt(format!("{slug} vanished")))
    }

    /// A show with its sections.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn show(&self, show_id: ShowId) -> Result<Option<ShowRecord>, StoreError> {
        let row = sqlx::query_as!(
            ShowRow,
            r#"SELECT show_id, slug, title, venue_id, venue.name AS venue_name, venue.city AS venue_city, starts_at,
                      sale_opens_at, cancel_until, currency, lobby, version
               FROM show JOIN venue USING (venue_id) WHERE show_id = $1"#,
            show_id.uuid(),
        )
        .fetch_optional(&self.pool)
        .await?;
        match row {
            Some(row) => self.with_sections(vec![row]).await?.pop().transpose(),
            None => Ok(None),
        }
    }

    /// A page of shows, the next to start first, and behind which one there are more, if there are. A show that cannot be
    /// read is left out: it hides no other.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn page(
        &self,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<(Vec<ShowRecord>, Option<Cursor>), StoreError> {
        let mut rows = sqlx::query_as!(
            ShowRow,
            r#"SELECT show_id, slug, title, venue_id, venue.name AS venue_name, venue.city AS venue_city, starts_at,
                      sale_opens_at, cancel_until, currency, lobby, version
               FROM show JOIN venue USING (venue_id)
               WHERE $1::timestamptz IS NULL OR (starts_at, show_id) > ($1, $2::uuid)
               ORDER BY starts_at, show_id LIMIT $3"#,
            after.map(|cursor| cursor.starts_at.inner()),
            after.map(|cursor| cursor.show_id.uuid()),
            i64::from(limit) + 1,
        )
        .fetch_all(&self.pool)
        .await?;
        let has_more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = rows
            .last()
            .filter(|_| has_more)
            .map(|row| Cursor { starts_at: row.starts_at.into(), show_id: ShowId::from_uuid(row.show_id) });
        let shows = self.with_sections(rows).await?.into_iter();
        let unreadable = |error: StoreError| tracing::error!(%error, "a show is left out");
        Ok((shows.filter_map(|show| show.map_err(unreadable).ok()).collect(), next))
    }

    async fn with_sections(
        &self,
        rows: Vec<ShowRow>,
    ) -> Result<Vec<Result<ShowRecord, StoreError>>, StoreError> {
        let ids: Vec<_> = rows.iter().map(|row| row.show_id).collect();
        let sections = sqlx::query_as!(
            SectionRow,
            "SELECT show_id, section_id, name, price, seating
             FROM section WHERE show_id = ANY($1) ORDER BY show_id, position",
            &ids,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| record(row, &sections)).collect())
    }

    /// When the stream of shows was made anew since they were last published, publishes every show again and
    /// remembers the new generation, in one transaction. Says how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn republish(&self, stream: &str, generation: &str) -> Result<usize, StoreError> {
        let known = sqlx::query_scalar!("SELECT generation FROM published WHERE stream = $1", stream)
            .fetch_optional(&self.pool)
            .await?;
        if known.as_deref() == Some(generation) {
            return Ok(0);
        }
        let (shows, _) = self.page(None, REPUBLISH_MAX).await?;
        let mut tx = self.pool.begin().await?;
        for show in &shows {
            self.publish(&mut tx, show, message(show)?).await?;
        }
        sqlx::query!(
            "INSERT INTO published (stream, generation) VALUES ($1, $2)
             ON CONFLICT (stream) DO UPDATE SET generation = excluded.generation",
            stream,
            generation,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        self.outbox.nudge();
        Ok(shows.len())
    }

    /// Publishes the next `limit` shows behind `after` again although nothing changed, and returns behind which one there are
    /// more, if there are. A show whose lane is blocked waits for the next round.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn publish_again(&self, after: Cursor, limit: u32) -> Result<Option<Cursor>, StoreError> {
        let blocked = self.outbox.blocked().await?;
        let (shows, next) = self.page(Some(after), limit).await?;
        let mut tx = self.pool.begin().await?;
        for show in &shows {
            let message = message(show)?;
            if !blocked.has(&show.show_id.to_string(), &message) {
                self.publish(&mut tx, show, message).await?;
            }
        }
        tx.commit().await?;
        self.outbox.nudge();
        Ok(next)
    }

    async fn publish(
        &self,
        connection: &mut PgConnection,
        show: &ShowRecord,
        message: Message,
    ) -> Result<(), StoreError> {
        self.outbox.add(connection, &show.show_id.to_string(), &[message]).await?;
        Ok(())
    }
}

/// Shows published again at once, at most: more than a catalog has.
const REPUBLISH_MAX: u32 = 100_000;

async fn insert_sections(connection: &mut PgConnection, show: &ShowRecord) -> Result<(), StoreError> {
    for (position, section) in (0_i32..).zip(&show.sections) {
        sqlx::query!(
            "INSERT INTO section (section_id, show_id, position, name, price, seating) VALUES ($1, $2, $3, $4, $5, $6)",
            section.section_id.uuid(),
            show.show_id.uuid(),
            position,
            section.name,
            section.price.amount(),
            Json(&section.seating) as _,
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// A show and those of `sections` that are its own.
fn record(row: ShowRow, sections: &[SectionRow]) -> Result<ShowRecord, StoreError> {
    let show_id = ShowId::from_uuid(row.show_id);
    let corrupt = |error: &dyn std::fmt::Display| StoreError::Corrupt(format!("{show_id}: {error}"));
    let currency = row.currency.parse().map_err(|error| corrupt(&error))?;
    let plan = |section: &SectionRow| {
        Ok(SectionPlan {
            section_id: SectionId::from_uuid(section.section_id),
            name: section.name.clone(),
            price: Money::try_new(section.price, currency).map_err(|error| corrupt(&error))?,
            seating: Seating::deserialize(&section.seating).map_err(|error| corrupt(&error))?,
        })
    };
    let own = sections.iter().filter(|section| section.show_id == row.show_id);
    let sections: Vec<SectionPlan> = own.map(plan).collect::<Result<_, StoreError>>()?;
    let lobby = row.lobby.map(serde_json::from_value::<LobbyRules>).transpose();
    Ok(ShowRecord {
        show_id,
        slug: row.slug,
        title: row.title,
        venue: Venue {
            venue_id: VenueId::from_uuid(row.venue_id),
            name: row.venue_name,
            city: row.venue_city,
        },
        starts_at: row.starts_at.into(),
        sale_opens_at: row.sale_opens_at.into(),
        cancel_until: row.cancel_until.into(),
        currency,
        lobby: lobby.map_err(|error| corrupt(&error))?,
        version: row.version,
        price_from: cheapest(&sections).ok_or_else(|| corrupt(&"it has no sections"))?,
        sections,
    })
}

fn message(show: &ShowRecord) -> Result<Message, StoreError> {
    Message::new(&show.published(), uuid::Uuid::now_v7().to_string()).map_err(corrupt)
}

fn corrupt(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(error.to_string())
}
