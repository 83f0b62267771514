//! Holds as they are stored, and as others see them.

use sqlx::types::Json;
use stampede_contracts::inventory::{HoldState, HoldView};
use stampede_contracts::{HoldId, OrderId, SessionId, Timestamp};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::block::Places;
use crate::domain::hold::{Hold, Next};

/// A stored hold.
pub(super) struct StoredHold {
    pub(super) hold: Hold,
    placed: HoldView,
}

/// The columns of a hold that its owner needs.
pub(super) struct HoldRow {
    pub(super) quantity: i16,
    pub(super) seats: Option<Vec<i16>>,
    pub(super) state: String,
    pub(super) expires_at: OffsetDateTime,
    pub(super) order_id: Option<Uuid>,
    pub(super) attached_until: Option<OffsetDateTime>,
    pub(super) let_go: Vec<Uuid>,
    pub(super) placed: Json<HoldView>,
}

impl TryFrom<HoldRow> for StoredHold {
    type Error = StoreError;

    fn try_from(row: HoldRow) -> Result<Self, StoreError> {
        let hold = Hold {
            state: state_of(&row.state)?,
            order: row.order_id.map(OrderId::from_uuid),
            expires_at: row.expires_at.into(),
            attached_until: row.attached_until.map(Timestamp::from),
            let_go: row.let_go.into_iter().map(OrderId::from_uuid).collect(),
            places: places_of(row.quantity, row.seats),
        };
        Ok(Self { hold, placed: row.placed.0 })
    }
}

impl StoredHold {
    /// The hold as others see it. A held hold whose time is over has ended, whether or not it was swept.
    pub(super) fn view(self, now: Timestamp) -> HoldView {
        let ended = self.hold.state == HoldState::Held && self.hold.is_over(now);
        let state = if ended { HoldState::Freed } else { self.hold.state };
        HoldView { state, order_id: self.hold.order, ..self.placed }
    }

    /// The hold after a change.
    pub(super) fn apply(&mut self, next: &Next) {
        self.hold.state = next.state;
        self.hold.order = next.order;
        self.hold.attached_until = next.attached_until;
        self.hold.let_go.extend(next.let_go);
    }
}

/// What a key was used for before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// The fingerprint of that request.
    pub fingerprint: String,
    /// The hold as it was answered then.
    pub view: HoldView,
}

impl Store {
    /// A hold, if there is one by this id.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn hold(&self, id: HoldId, now: Timestamp) -> Result<Option<HoldView>, StoreError> {
        let row = sqlx::query_as!(
            HoldRow,
            r#"SELECT quantity, seats, state, expires_at, order_id, attached_until, let_go,
                      placed AS "placed: Json<HoldView>"
               FROM hold WHERE id = $1 AND block = $2"#,
            id.uuid(),
            id.block().number(),
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| Ok(StoredHold::try_from(row)?.view(now))).transpose()
    }

    /// The hold that a key got before.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn earlier(&self, session: SessionId, key: &str) -> Result<Option<Earlier>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT r.fingerprint, h.placed AS "placed: Json<HoldView>"
               FROM hold_request r JOIN hold h ON h.id = r.hold
               WHERE r.session = $1 AND r.key = $2"#,
            session.uuid(),
            key,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| Earlier { fingerprint: row.fingerprint, view: row.placed.0 }))
    }
}

pub(super) fn places_of(quantity: i16, seats: Option<Vec<i16>>) -> Places {
    match seats {
        Some(seats) => Places::Numbered(seats.into_iter().map(i16::unsigned_abs).collect()),
        None => Places::Unnumbered(u32::from(quantity.unsigned_abs())),
    }
}

pub(super) fn seats_of(places: &Places) -> Option<Vec<i16>> {
    match places {
        // An index is below a thousand.
        Places::Numbered(seats) => {
            Some(seats.iter().map(|seat| i16::try_from(*seat).unwrap_or(i16::MAX)).collect())
        }
        Places::Unnumbered(_) => None,
    }
}

pub(super) fn state_of(word: &str) -> Result<HoldState, StoreError> {
    [HoldState::Held, HoldState::Attached, HoldState::Sold, HoldState::Freed]
        .into_iter()
        .find(|state| word_of(*state) == word)
        .ok_or(StoreError::Unreadable("state of a hold"))
}

pub(super) const fn word_of(state: HoldState) -> &'static str {
    match state {
        HoldState::Held => "held",
        HoldState::Attached => "attached",
        HoldState::Sold => "sold",
        HoldState::Freed => "freed",
    }
}
