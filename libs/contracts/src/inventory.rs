//! What `inventory` offers over request-reply, on `rpc.inventory.<shard>.<function>` to the shard's owner
//! or `rpc.inventory.any.<function>` to any node.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    BlockId, HasKey, HoldId, Money, OrderId, PassId, SeatId, SectionId, SessionId, ShowId, StepId, Timestamp,
    function::function,
};

/// Number of shards. Stored with every block, so changing it moves nothing by itself.
pub const SHARDS: u16 = 64;

/// Which seats are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// So many of a section, the best there are, side by side where possible.
    Best {
        /// The section.
        section: SectionId,
        /// How many, at least 1.
        quantity: u32,
    },
    /// Exactly these, all in one block.
    Seats(Vec<SeatId>),
}

/// Hold seats for a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceHold {
    /// Whose hold.
    pub session: SessionId,
    /// The client's `Idempotency-Key`; with the session unique over all shards.
    pub key: String,
    /// HMAC of path and body, 64 hexadecimal digits: the same key with another one is `key_reused`.
    pub fingerprint: String,
    /// The same by keys that this one replaces, or that will replace it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_fingerprints: Vec<String>,
    /// The show.
    pub show: ShowId,
    /// The seats.
    pub want: Want,
    /// The lobby's pass as the client sent it.
    pub pass: Option<String>,
    /// The block to try; set by the node that picked it, absent on `any`.
    pub block: Option<BlockId>,
}

impl HasKey for PlaceHold {
    type Key<'a> = (SessionId, &'a str);

    fn key(&self) -> (SessionId, &str) {
        (self.session, &self.key)
    }
}

/// Answer to [`Hold`]. On `any` it is always `Held` or a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldAnswer {
    /// Done, now or by an earlier request with the same key.
    Held(Box<HoldView>),
    /// This block cannot serve the request; another may.
    Full {
        /// The block that refused.
        block: BlockId,
        /// Its version: a later one may have more.
        version: i64,
        /// The largest quantity it could serve at that version.
        largest: u32,
    },
}

/// State of a hold. *Live* is held or attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HoldState {
    /// Waiting for an order until `expires_at`.
    Held,
    /// Part of an order; does not expire by itself.
    Attached,
    /// Sold.
    Sold,
    /// Ended; the seats are free.
    Freed,
}

/// A seat or place as a person reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SeatLabel {
    /// The seat; absent for general admission.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seat_id: Option<SeatId>,
    /// Name of the section.
    pub section: String,
    /// Label of the row; absent for general admission.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<String>,
    /// Number in the row; absent for general admission.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
}

/// What of the show an order needs to know; frozen in the hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowFacts {
    /// Title.
    pub title: String,
    /// Name of the venue.
    pub venue: String,
    /// When it starts.
    pub starts_at: Timestamp,
    /// Until when an order can be cancelled.
    pub cancel_until: Timestamp,
}

/// A hold as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldView {
    /// The hold.
    pub hold_id: HoldId,
    /// Whose.
    pub session: SessionId,
    /// The show.
    pub show_id: ShowId,
    /// The section.
    pub section_id: SectionId,
    /// How many seats.
    pub quantity: u32,
    /// One label a seat or place.
    pub seats: Vec<SeatLabel>,
    /// Price frozen at the hold, for all seats.
    pub total: Money,
    /// When a held hold ends by itself.
    pub expires_at: Timestamp,
    /// Its state.
    pub state: HoldState,
    /// The order it is attached or sold to.
    pub order_id: Option<OrderId>,
    /// The show, as frozen.
    pub show: ShowFacts,
}

/// A hold and who asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldOf {
    /// The hold.
    pub hold_id: HoldId,
    /// Strangers get `hold_not_found`.
    pub session: SessionId,
}

/// A hold ends once, so releasing it needs no other name.
impl HasKey for HoldOf {
    type Key<'a> = HoldId;

    fn key(&self) -> HoldId {
        self.hold_id
    }
}

/// Make a held hold part of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The hold.
    pub hold_id: HoldId,
    /// Strangers get `hold_not_found`.
    pub session: SessionId,
    /// The order.
    pub order_id: OrderId,
    /// The step of the order's saga: its key.
    pub step: StepId,
    /// The order's; the hold ends by itself five minutes after it.
    pub decide_by: Timestamp,
}

impl HasKey for Attach {
    type Key<'a> = StepId;

    fn key(&self) -> StepId {
        self.step
    }
}

/// Change a hold on behalf of the order it belongs to. Does nothing to a hold of another order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfOrder {
    /// The hold.
    pub hold_id: HoldId,
    /// The order it must be attached or sold to.
    pub order_id: OrderId,
    /// The step of the order's saga: its key.
    pub step: StepId,
}

impl HasKey for OfOrder {
    type Key<'a> = StepId;

    fn key(&self) -> StepId {
        self.step
    }
}

/// End a shopping slot: its pass buys no hold any more, a held hold made with it is released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosePassOf {
    /// The pass.
    pub pass_id: PassId,
    /// Whose.
    pub session: SessionId,
    /// For which show.
    pub show: ShowId,
}

/// A pass is closed once, so closing it needs no other name.
impl HasKey for ClosePassOf {
    type Key<'a> = PassId;

    fn key(&self) -> PassId {
        self.pass_id
    }
}

/// Answer to [`ClosePass`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassEnd {
    /// When the pass was closed; the first closing counts.
    pub closed_at: Timestamp,
    /// The held hold that was released with it.
    pub released: Option<HoldId>,
}

/// How long an attached hold outlives the order's `decide_by` before it ends by itself.
pub const ATTACHED_GRACE: Duration = Duration::from_secs(300);

function!(
    /// Hold seats. `seats_taken`, `hold_exists`, `pass_required`, `pass_invalid`, `pass_closed`, `key_reused`,
    /// `seats_span_blocks`, `not_on_sale`, `show_not_found`, `section_not_found`, `seat_not_found`, `validation_failed`.
    Hold, "inventory", "hold", Keyed, Hold, 3_000, PlaceHold => HoldAnswer
);
function!(
    /// Read a hold. `hold_not_found`.
    GetHold, "inventory", "get", Safe, Hold, 2_000, HoldOf => HoldView
);
function!(
    /// Release a held hold; an ended one is no error. `hold_not_found`, `hold_attached`.
    ReleaseHold, "inventory", "release", Keyed, Hold, 2_000, HoldOf => HoldView
);
function!(
    /// held → attached; closes the pass in the same transaction. `hold_not_found`, `hold_gone`.
    AttachHold, "inventory", "attach", Keyed, Pay, 3_000, Attach => HoldView
);
function!(
    /// attached → held again (until its old expiry, free at once if that has passed), after a decline.
    DetachHold, "inventory", "detach", Keyed, Pay, 3_000, OfOrder => HoldView
);
function!(
    /// attached → sold. `hold_gone` when the hold is no longer attached to this order.
    ConfirmHold, "inventory", "confirm", Keyed, Pay, 3_000, OfOrder => HoldView
);
function!(
    /// attached → free or sold → free: compensation and cancelling. Done already is no error.
    FreeHold, "inventory", "free", Keyed, Pay, 3_000, OfOrder => HoldView
);
function!(
    /// Close a pass.
    ClosePass, "inventory", "close_pass", Keyed, Join, 2_000, ClosePassOf => PassEnd
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_sessions_and_the_same_whichever_block_is_tried() {
        let first = PlaceHold {
            session: SessionId::new(),
            key: "k1".into(),
            fingerprint: "00".into(),
            other_fingerprints: Vec::new(),
            show: ShowId::new(),
            want: Want::Best { section: SectionId::new(), quantity: 2 },
            pass: None,
            block: None,
        };
        let again = PlaceHold { block: Some(BlockId::from_number(7)), ..first.clone() };
        assert_eq!(again.key(), first.key());
        assert_ne!(PlaceHold { session: SessionId::new(), ..first.clone() }.key(), first.key());
        assert_ne!(PlaceHold { key: "k2".into(), ..first.clone() }.key(), first.key());
    }
}
