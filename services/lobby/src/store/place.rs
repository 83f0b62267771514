//! Places: one open place a session and show, from joining to its end.

use std::time::Duration;

use stampede_contracts::api::PlaceState;
use stampede_contracts::{LobbyTicket, PassId, SessionId, ShowId, Timestamp};
use time::OffsetDateTime;

use super::{Store, unsigned};

/// The unique index that lets a session have one open place in a show.
const ONE_OPEN: &str = "place_open";

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

impl Store {
    /// The place of a session in a show: the open one, or a new one at the end of the line. Says whether it is new.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn join(&self, show_id: ShowId, session: SessionId) -> Result<(Place, bool), sqlx::Error> {
        match self.open_or_new(show_id, session).await {
            // The same session came in between; nothing was written, and its place is there now.
            Err(sqlx::Error::Database(error)) if error.constraint() == Some(ONE_OPEN) => {
                self.open_or_new(show_id, session).await
            }
            result => result,
        }
    }

    /// The show's row orders those who arrive: whoever waits for it sees the numbers, and the draw, of who came before.
    async fn open_or_new(&self, show_id: ShowId, session: SessionId) -> Result<(Place, bool), sqlx::Error> {
        let row = sqlx::query!(
            r#"WITH open AS (
                   SELECT place_id, state, number, pass_id, pass_expires_at FROM place
                   WHERE session = $1 AND show_id = $2 AND state IN ('early', 'waiting', 'admitted')
               ), arrived AS (
                   UPDATE show SET numbered = numbered + CASE WHEN drawn_at IS NULL THEN 0 ELSE 1 END
                   WHERE show_id = $2 AND NOT EXISTS (SELECT FROM open)
                   RETURNING CASE WHEN drawn_at IS NULL THEN 'early' ELSE 'waiting' END AS state,
                       CASE WHEN drawn_at IS NOT NULL THEN numbered END AS number
               ), new AS (
                   INSERT INTO place (place_id, show_id, session, state, number)
                   SELECT $3, $2, $1, state, number FROM arrived
                   RETURNING place_id, state, number
               )
               SELECT place_id AS "place_id!", state AS "state!", number, pass_id, pass_expires_at, false AS "is_new!"
               FROM open
               UNION ALL
               SELECT place_id, state, number, NULL, NULL, true FROM new"#,
            session.uuid(),
            show_id.uuid(),
            LobbyTicket::new().uuid(),
        )
        .fetch_one(&self.pool)
        .await?;
        let place = PlaceRow {
            place_id: row.place_id,
            show_id: show_id.uuid(),
            session: session.uuid(),
            state: row.state,
            number: row.number,
            pass_id: row.pass_id,
            pass_expires_at: row.pass_expires_at,
        };
        Ok((place.into(), row.is_new))
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

    /// Ends an open place because its holder leaves; one that was called only if its pass is the one that inventory has
    /// `closed`.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn leave(&self, ticket: LobbyTicket, closed: Option<PassId>) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE place SET state = 'left', ended_at = now()
             WHERE place_id = $1 AND (state IN ('early', 'waiting') OR (state = 'admitted' AND pass_id = $2))",
            ticket.uuid(),
            closed.map(|pass| pass.uuid()),
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
