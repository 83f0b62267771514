//! The lobby's database. One method a use case; the show's row is locked by whoever changes its line.

use std::time::Duration;

use sqlx::{PgConnection, PgPool, migrate::Migrator};
use stampede_contracts::{
    LobbyTicket, PassId, SessionId, ShowId, Timestamp,
    api::PlaceState,
    event::{LobbyRules, ShowPublished},
};
use time::OffsetDateTime;

use crate::domain::{Allowance, Decision, Stock, decide};

/// The schema.
pub static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// The lobby's database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

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

/// A place in a line.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The place.
    pub ticket: LobbyTicket,
    /// The show.
    pub show_id: ShowId,
    /// Whose.
    pub session: SessionId,
    /// Its state.
    pub state: PlaceState,
    /// Its number, once it has one.
    pub number: Option<u64>,
    /// The shopping slot, once it was called.
    pub slot: Option<Slot>,
}

/// A shopping slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Its pass.
    pub pass_id: PassId,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What a look at a line did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Called {
    /// How long everybody waited who was admitted now.
    pub admitted: Vec<Duration>,
    /// How many were told that it is sold out.
    pub sold_out: u64,
    /// How many slots ended or places were given up.
    pub ended: u64,
}

impl Store {
    /// On a migrated database.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

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

    /// The place of a session in a show: the open one, or a new one at the end of the line. Says whether it is new.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn join(&self, show_id: ShowId, session: SessionId) -> Result<(Place, bool), sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        // The show's row orders those who arrive; a repeat finds its place under the same lock.
        let drawn = sqlx::query_scalar!(
            r#"SELECT drawn_at IS NOT NULL AS "drawn!" FROM show WHERE show_id = $1 FOR UPDATE"#,
            show_id.uuid()
        )
        .fetch_one(&mut *tx)
        .await?;
        let open = sqlx::query_as!(
            PlaceRow,
            "SELECT place_id, show_id, session, state, number, pass_id, pass_expires_at FROM place
             WHERE session = $1 AND show_id = $2 AND state IN ('early', 'waiting', 'admitted')",
            session.uuid(),
            show_id.uuid(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(open) = open {
            return Ok((open.into(), false));
        }
        let number = if drawn { Some(next_number(&mut tx, show_id).await?) } else { None };
        let ticket = LobbyTicket::new();
        sqlx::query!(
            "INSERT INTO place (place_id, show_id, session, state, number) VALUES ($1, $2, $3, $4, $5)",
            ticket.uuid(),
            show_id.uuid(),
            session.uuid(),
            if drawn { "waiting" } else { "early" },
            number,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        let state = if drawn { PlaceState::Waiting } else { PlaceState::Early };
        Ok((Place { ticket, show_id, session, state, number: number.map(unsigned), slot: None }, true))
    }

    /// A place, and notes that somebody asked for it, at most once in `note_every`.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn place(
        &self,
        ticket: LobbyTicket,
        note_every: Duration,
    ) -> Result<Option<Place>, sqlx::Error> {
        let row = sqlx::query!(
            r#"SELECT place_id, show_id, session, state, number, pass_id, pass_expires_at, now() - seen_at > $2 AS "note!"
               FROM place WHERE place_id = $1"#,
            ticket.uuid(),
            note_every as _,
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        if row.note && matches!(row.state.as_str(), "early" | "waiting") {
            sqlx::query!("UPDATE place SET seen_at = now() WHERE place_id = $1", ticket.uuid())
                .execute(&self.pool)
                .await?;
        }
        let place = PlaceRow {
            place_id: row.place_id,
            show_id: row.show_id,
            session: row.session,
            state: row.state,
            number: row.number,
            pass_id: row.pass_id,
            pass_expires_at: row.pass_expires_at,
        };
        Ok(Some(place.into()))
    }

    /// Ends an open place because its holder leaves. One that was called must have been closed at inventory before.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn leave(&self, ticket: LobbyTicket) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE place SET state = 'left', ended_at = now()
             WHERE place_id = $1 AND state IN ('early', 'waiting', 'admitted')",
            ticket.uuid(),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Frees the slots of passes that inventory closed. Says how many there were.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn passes_closed(&self, passes: &[PassId]) -> Result<u64, sqlx::Error> {
        let passes: Vec<_> = passes.iter().map(PassId::uuid).collect();
        let ended = sqlx::query!(
            "UPDATE place SET state = 'expired', ended_at = now() WHERE pass_id = ANY($1) AND state = 'admitted'",
            &passes,
        )
        .execute(&self.pool)
        .await?;
        Ok(ended.rows_affected())
    }

    /// Holds the draw if it is due and was not held: everybody who is here gets a number in the order of
    /// SHA-256(seed ‖ lobby ticket), which anybody can check once the seed is public. Says how many took part.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn draw(&self, show_id: ShowId) -> Result<u64, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let due = sqlx::query_scalar!(
            "SELECT show_id FROM show WHERE show_id = $1 AND drawn_at IS NULL AND sale_opens_at <= now() FOR UPDATE",
            show_id.uuid(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        if due.is_none() {
            return Ok(0);
        }
        let drawn = sqlx::query!(
            "UPDATE place SET state = 'waiting', number = drawn.number
             FROM (SELECT place_id, row_number() OVER (ORDER BY sha256(show.seed || uuid_send(place_id))) AS number
                   FROM place JOIN show USING (show_id) WHERE show_id = $1 AND state = 'early') AS drawn
             WHERE place.place_id = drawn.place_id",
            show_id.uuid(),
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        sqlx::query!(
            "UPDATE show SET drawn_at = now(), numbered = $2, allowance_at = now() WHERE show_id = $1",
            show_id.uuid(),
            i64::try_from(drawn).unwrap_or(i64::MAX),
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(drawn)
    }

    /// One look at the line of a show: slots that are over end, whoever was not heard of is passed over, and as many
    /// are called as may be. With several replicas one looks and the others go on to the next show.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn call(
        &self,
        show_id: ShowId,
        stock: Option<Stock>,
        abandoned_after: Duration,
    ) -> Result<Called, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let locked = sqlx::query!(
            r#"SELECT rate_per_second AS "rate!", slots_max AS "slots_max!", slot_seconds AS "slot_seconds!",
                      allowance, extract(epoch FROM now() - allowance_at)::float8 AS "elapsed!"
               FROM show WHERE show_id = $1 AND drawn_at IS NOT NULL AND opens_at IS NOT NULL FOR UPDATE SKIP LOCKED"#,
            show_id.uuid(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(show) = locked else { return Ok(Called::default()) };
        // A slot is free again one second after its pass ended: until then a clock may still think it valid.
        let ended = sqlx::query!(
            "UPDATE place SET state = 'expired', ended_at = now()
             WHERE show_id = $1 AND state = 'admitted' AND pass_expires_at < now() - interval '1 second'",
            show_id.uuid(),
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        let mut called = Called { ended, ..Called::default() };
        let rate = u32::try_from(show.rate).unwrap_or(1);
        let elapsed = Duration::try_from_secs_f64(show.elapsed).unwrap_or_default();
        let mut allowance = Allowance { people: show.allowance }.after(elapsed, rate);
        let Some(stock) = stock else {
            tx.commit().await?;
            return Ok(called);
        };
        let slots_free = slots_free(&mut tx, show_id, show.slots_max).await?;
        match decide(stock, allowance, slots_free) {
            Decision::SoldOut => called.sold_out = sold_out(&mut tx, show_id).await?,
            Decision::Admit(people) if people > 0 => {
                called.ended += pass_over(&mut tx, show_id, people, abandoned_after).await?;
                called.admitted = admit(&mut tx, show_id, people, show.slot_seconds).await?;
                allowance = allowance.without(u32::try_from(called.admitted.len()).unwrap_or(people));
            }
            Decision::Admit(_) => {}
        }
        let left = allowance.people;
        sqlx::query!(
            "UPDATE show SET allowance = $2, allowance_at = now() WHERE show_id = $1",
            show_id.uuid(),
            left,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(called)
    }

    /// Places by state, for the metrics.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn open_places(&self) -> Result<Vec<(String, i64)>, sqlx::Error> {
        let rows = sqlx::query!(
            r#"SELECT state, count(*) AS "count!" FROM place WHERE state IN ('early', 'waiting', 'admitted') GROUP BY state"#
        );
        Ok(rows.fetch_all(&self.pool).await?.into_iter().map(|row| (row.state, row.count)).collect())
    }
}

async fn next_number(connection: &mut PgConnection, show_id: ShowId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        "UPDATE show SET numbered = numbered + 1 WHERE show_id = $1 RETURNING numbered",
        show_id.uuid()
    )
    .fetch_one(connection)
    .await
}

async fn slots_free(
    connection: &mut PgConnection,
    show_id: ShowId,
    slots_max: i32,
) -> Result<u32, sqlx::Error> {
    let used = sqlx::query_scalar!(
        r#"SELECT count(*) AS "used!" FROM place WHERE show_id = $1 AND state = 'admitted'"#,
        show_id.uuid()
    )
    .fetch_one(connection)
    .await?;
    Ok(u32::try_from(i64::from(slots_max) - used).unwrap_or(0))
}

async fn sold_out(connection: &mut PgConnection, show_id: ShowId) -> Result<u64, sqlx::Error> {
    let told = sqlx::query!(
        "UPDATE place SET state = 'sold_out', ended_at = now() WHERE show_id = $1 AND state IN ('early', 'waiting')",
        show_id.uuid(),
    );
    Ok(told.execute(connection).await?.rows_affected())
}

/// Ends the places among the next `people` whose holders were not heard of for too long.
async fn pass_over(
    connection: &mut PgConnection,
    show_id: ShowId,
    people: u32,
    abandoned_after: Duration,
) -> Result<u64, sqlx::Error> {
    let ended = sqlx::query!(
        "UPDATE place SET state = 'expired', ended_at = now()
         WHERE place_id IN (
             SELECT place_id FROM place WHERE show_id = $1 AND state = 'waiting' ORDER BY number LIMIT $2
         ) AND seen_at < now() - $3::interval",
        show_id.uuid(),
        i64::from(people),
        abandoned_after as _,
    );
    Ok(ended.execute(connection).await?.rows_affected())
}

/// Calls the next `people` in the order of their numbers. Says how long each has waited.
async fn admit(
    connection: &mut PgConnection,
    show_id: ShowId,
    people: u32,
    slot_seconds: i32,
) -> Result<Vec<Duration>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"WITH next AS (
               SELECT place_id FROM place WHERE show_id = $1 AND state = 'waiting' ORDER BY number LIMIT $2 FOR UPDATE
           ), called AS (
               UPDATE place SET state = 'admitted', admitted_at = now(), pass_id = gen_random_uuid(),
                                pass_expires_at = now() + make_interval(secs => $3)
               FROM next WHERE place.place_id = next.place_id RETURNING number, joined_at
           ), serving AS (
               UPDATE show SET serving = greatest(serving, (SELECT max(number) FROM called))
               WHERE show_id = $1 AND EXISTS (SELECT FROM called)
           )
           SELECT joined_at, now() AS "now!" FROM called"#,
        show_id.uuid(),
        i64::from(people),
        f64::from(slot_seconds),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| Timestamp::from(row.now).since(row.joined_at.into())).collect())
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

struct PlaceRow {
    place_id: uuid::Uuid,
    show_id: uuid::Uuid,
    session: uuid::Uuid,
    state: String,
    number: Option<i64>,
    pass_id: Option<uuid::Uuid>,
    pass_expires_at: Option<OffsetDateTime>,
}

impl From<PlaceRow> for Place {
    fn from(row: PlaceRow) -> Self {
        let slot = |(pass, expires): (uuid::Uuid, OffsetDateTime)| Slot {
            pass_id: PassId::from_uuid(pass),
            expires_at: expires.into(),
        };
        Self {
            ticket: LobbyTicket::from_uuid(row.place_id),
            show_id: ShowId::from_uuid(row.show_id),
            session: SessionId::from_uuid(row.session),
            // The column's check lets no other word in.
            state: match row.state.as_str() {
                "early" => PlaceState::Early,
                "waiting" => PlaceState::Waiting,
                "admitted" => PlaceState::Admitted,
                "sold_out" => PlaceState::SoldOut,
                "left" => PlaceState::Left,
                _ => PlaceState::Expired,
            },
            number: row.number.map(unsigned),
            slot: row.pass_id.zip(row.pass_expires_at).map(slot),
        }
    }
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
