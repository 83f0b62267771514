//! Bodies of the public HTTP API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Currency, HoldId, LobbyTicket, Money, OrderId, SeatId, SectionId, ShowId, TicketId, Timestamp, VenueId,
    event::{LobbyRules, Seating},
    inventory::{HoldState, SeatLabel},
};

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Pass it as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A new session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Send it as `Authorization: Bearer …`.
    pub token: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A venue, as an operator describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVenue {
    /// Name.
    #[schema(
        max_length = 200,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub name: String,
    /// City.
    #[schema(
        max_length = 200,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub city: String,
}

/// A section, as an operator describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSection {
    /// Name, unique in the show.
    #[schema(
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub name: String,
    /// Price of one seat in minor units.
    #[serde(deserialize_with = "crate::whole::deserialize")]
    #[schema(minimum = 0, maximum = 100_000_000_000i64)]
    pub price: i64,
    /// How people sit.
    pub seating: Seating,
}

/// A show, as an operator describes it. The slug makes it once: the same body again is the same show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewShow {
    /// Unique short name: lower-case letters, digits and dashes.
    #[schema(example = "cellar-night", pattern = "^[a-z0-9-]{1,64}$")]
    pub slug: String,
    /// Title.
    #[schema(
        max_length = 200,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub title: String,
    /// The venue; made when its name and city are new.
    pub venue: NewVenue,
    /// When it starts.
    pub starts_at: Timestamp,
    /// From when on seats can be held; absent: at once.
    pub sale_opens_at: Option<Timestamp>,
    /// Until when an order can be cancelled; absent: until it starts.
    pub cancel_until: Option<Timestamp>,
    /// Currency of every price.
    pub currency: Currency,
    /// One or more, at most 100, with at most 5,000 rows of numbered seats and 200,000 seats and places in all.
    #[schema(min_items = 1, max_items = 100)]
    pub sections: Vec<NewSection>,
    /// Absent: seats are held without a pass.
    pub lobby: Option<LobbyRules>,
}

/// A venue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Venue {
    /// The venue.
    pub venue_id: VenueId,
    /// Name.
    pub name: String,
    /// City.
    pub city: String,
}

/// How many seats are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, Default)]
pub struct Availability {
    /// All seats.
    pub capacity: u64,
    /// Can be held now.
    pub free: u64,
    /// Held or in an order that is not paid.
    pub held: u64,
    /// Sold.
    pub sold: u64,
}

/// A section of a show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Section {
    /// The section.
    pub section_id: SectionId,
    /// Its name.
    pub name: String,
    /// Price of one seat.
    pub price: Money,
    /// Whether seats have numbers.
    pub numbered: bool,
    /// How it stands; absent while the copy is being built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability: Option<Availability>,
}

/// A show in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShowSummary {
    /// The show.
    pub show_id: ShowId,
    /// Unique short name.
    pub slug: String,
    /// Title.
    pub title: String,
    /// Where.
    pub venue: Venue,
    /// When it starts.
    pub starts_at: Timestamp,
    /// From when on seats can be held.
    pub sale_opens_at: Timestamp,
    /// Whether holding seats needs a pass from the lobby.
    pub lobby: bool,
    /// The cheapest seat.
    pub price_from: Money,
}

/// A show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Show {
    /// As in the list.
    #[serde(flatten)]
    pub summary: ShowSummary,
    /// Until when an order can be cancelled.
    pub cancel_until: Timestamp,
    /// How its lobby lets people in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lobby_rules: Option<LobbyRules>,
    /// The sections, best first.
    pub sections: Vec<Section>,
    /// How old the availability is: a copy, a moment behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
}

/// State of a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SeatState {
    /// Can be held.
    Free,
    /// Held, or in an order that is not paid.
    Held,
    /// Sold.
    Sold,
    /// Never for sale.
    Blocked,
}

/// A seat on the map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Seat {
    /// The seat.
    pub seat_id: SeatId,
    /// Label of its row.
    pub row: String,
    /// Its number in the row.
    pub number: u32,
    /// Its state.
    pub state: SeatState,
}

/// The seats of one section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SeatMap {
    /// The show.
    pub show_id: ShowId,
    /// The section.
    pub section_id: SectionId,
    /// Its name.
    pub section: String,
    /// How it stands.
    pub availability: Availability,
    /// Every seat, best row first; empty for general admission.
    pub seats: Vec<Seat>,
    /// How old the copy is.
    pub as_of: Timestamp,
}

/// State of a place in a lobby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlaceState {
    /// Before the draw: everybody who is here when the sale opens takes part.
    Early,
    /// In line.
    Waiting,
    /// May hold seats, with `pass`.
    Admitted,
    /// Nothing is left.
    SoldOut,
    /// The shopping slot ended, or its holder ordered.
    Expired,
    /// Left.
    Left,
}

/// A place in a lobby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// Names the place; whoever holds it and the session may read and leave it.
    pub lobby_ticket: LobbyTicket,
    /// The show.
    pub show_id: ShowId,
    /// State of the place.
    pub state: PlaceState,
    /// Number in line; null before the draw.
    pub number: Option<u64>,
    /// How many are before it; null before the draw.
    pub ahead: Option<u64>,
    /// About how long it takes; null before the draw.
    pub eta_seconds: Option<u64>,
    /// When to ask again.
    pub poll_after_ms: u32,
    /// Send it as `Lobby-Pass` to hold seats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass: Option<String>,
    /// When the shopping slot ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_expires_at: Option<Timestamp>,
}

/// The draw of a lobby, so that anybody can check it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Draw {
    /// The show.
    pub show_id: ShowId,
    /// SHA-256 of the seed, published before anybody can join; 64 hexadecimal digits.
    pub seed_hash: String,
    /// The seed, published after the draw; 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
}

/// Seats to hold: a section and a quantity, or chosen seats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewHold {
    /// With `quantity`: the best seats of this section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<SectionId>,
    /// With `section`: how many.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    pub quantity: Option<u32>,
    /// Instead: exactly these seats, all in one block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seats: Option<Vec<SeatId>>,
}

/// Held seats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hold {
    /// The hold.
    pub hold_id: HoldId,
    /// The show.
    pub show_id: ShowId,
    /// The section.
    pub section_id: SectionId,
    /// How many.
    pub quantity: u32,
    /// The seats.
    pub seats: Vec<SeatLabel>,
    /// Price of all, frozen.
    pub total: Money,
    /// When they are free again if no order comes.
    pub expires_at: Timestamp,
    /// State of the hold.
    pub state: HoldState,
}

/// Who buys.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBuyer {
    /// Name on the tickets.
    #[schema(
        max_length = 200,
        example = "Ada Lovelace",
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub name: String,
    /// Where the tickets are sent.
    #[schema(schema_with = crate::described::email)]
    pub email: String,
}

/// How it is paid.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPayment {
    /// A token from the payment provider; card data never comes here.
    #[schema(max_length = 200, example = "tok_works_5f60718293a4b5010192f0c1a2b37c4d", pattern = "^[!-~]+$")]
    pub card_token: String,
}

/// An order to place.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    /// The held seats.
    pub hold_id: HoldId,
    /// Who buys.
    pub buyer: NewBuyer,
    /// How it is paid.
    pub payment: NewPayment,
}

/// State of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    /// On its way.
    Pending,
    /// Paid; the tickets are valid. Final unless it is cancelled.
    Confirmed,
    /// The card was declined; the seats are held again. Final.
    Declined,
    /// Seats are released; the money is being settled.
    Failing,
    /// Nothing was charged, or all was given back. Final.
    Failed,
    /// Tickets are revoked; the refund is under way.
    Cancelling,
    /// Refunded. Final.
    Cancelled,
}

impl OrderState {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Declined => "declined",
            Self::Failing => "failing",
            Self::Failed => "failed",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the saga has come to rest.
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Confirmed | Self::Declined | Self::Failed | Self::Cancelled)
    }
}

impl std::str::FromStr for OrderState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        use OrderState::{Cancelled, Cancelling, Confirmed, Declined, Failed, Failing, Pending};
        [Pending, Confirmed, Declined, Failing, Failed, Cancelling, Cancelled]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(())
    }
}

/// One line of an order's timeline: where is my ticket?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimelineEntry {
    /// When.
    pub at: Timestamp,
    /// Which step: placed, attach, authorise, confirm, capture, tickets, notify, detach, void, free, refund, …
    pub step: String,
    /// What became of it: started, done, refused, repeated, …
    pub state: String,
    /// More, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// State of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TicketState {
    /// Opens the door.
    Valid,
    /// Cancelled.
    Revoked,
}

/// A ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ticket {
    /// The ticket.
    pub ticket_id: TicketId,
    /// Its order.
    pub order_id: OrderId,
    /// Its show.
    pub show_id: ShowId,
    /// The seat.
    pub seat: SeatLabel,
    /// State of the ticket.
    pub state: TicketState,
    /// Signed with a key of `/v1/ticket-keys`; a scanner verifies it offline.
    pub code: String,
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Order {
    /// The order.
    pub order_id: OrderId,
    /// Its state.
    pub state: OrderState,
    /// The show; absent until the hold is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub show_id: Option<ShowId>,
    /// The hold.
    pub hold_id: HoldId,
    /// The price; absent until the hold is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Money>,
    /// When it was placed.
    pub created_at: Timestamp,
    /// Until when it can be cancelled; absent until the hold is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_until: Option<Timestamp>,
    /// The tickets, once it is confirmed.
    pub tickets: Vec<Ticket>,
    /// Only in the reply to placing it and in the mail: reads, cancels and fetches tickets without the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_secret: Option<String>,
    /// Every step so far, oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// The trace of the purchase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// Public keys of ticket codes, as a JSON Web Key Set (RFC 7517, RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TicketKeys {
    /// The keys.
    pub keys: Vec<TicketKey>,
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TicketKey {
    /// Key id, as in the code.
    pub kid: String,
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// The key, base64url.
    pub x: String,
}

/// How to pay without money, outside production.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestCards {
    /// `POST` `{"card_number": "…"}` there for a `card_token`.
    pub tokens_url: String,
    /// The cards.
    pub cards: Vec<TestCard>,
}

/// A test card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestCard {
    /// Its number.
    pub card_number: String,
    /// What happens when it is used.
    pub behaviour: String,
}

/// The test cards that `psp-sim` knows: number and behaviour.
pub const TEST_CARDS: &[(&str, &str)] = &[
    ("4242424242424242", "works"),
    ("4000000000000002", "declined: card_declined"),
    ("4000000000009995", "declined: insufficient_funds"),
    ("4000000000000101", "works, but the first answer to the authorisation is lost"),
    ("4000000000000119", "works, after five seconds"),
    ("4000000000000127", "times out at first and lands after the provider said that it knows nothing of it"),
    ("4000000000000135", "is authorised, but the capture is refused for good"),
];

/// A command or event that could not be handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// Its number in the stream of dead letters.
    pub sequence: u64,
    /// `dlq.<service>.<consumer>`.
    pub subject: String,
    /// Where it came from.
    pub origin_subject: String,
    /// Why.
    pub reason: String,
    /// CloudEvents id.
    pub event_id: String,
    /// When.
    pub at: Timestamp,
}
