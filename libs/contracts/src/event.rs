//! Events: CloudEvents on `evt.<service>.<noun>.<version>.<key>`. Ids only, never personal data.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    BlockId, Currency, Money, OrderId, PassId, SectionId, ShowId, StepId, Timestamp, api::OrderState,
    command::PaymentAction,
};

/// Something that is published on JetStream: an event or a command.
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// CloudEvents `type`, for example `stampede.inventory.block.v1`.
    const TYPE: &'static str;
    /// CloudEvents `source`: the service that publishes it.
    const SOURCE: &'static str;

    /// Where it is published.
    fn subject(&self) -> String;

    /// What it is part of: the order, for everything that belongs to one.
    fn correlation_id(&self) -> Option<String> {
        None
    }
}

/// One row of numbered seats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, utoipa::ToSchema)]
pub struct Row {
    /// Label on the floor, for example `C`.
    #[schema(
        example = "C",
        max_length = 16,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$"
    )]
    pub label: String,
    /// Seats in it, numbered from 1.
    #[schema(minimum = 1, maximum = 1000)]
    #[serde(deserialize_with = "crate::whole::deserialize")]
    pub seats: u32,
}

/// How people sit in a section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Seating {
    /// Numbered seats, the best row first.
    Rows(Vec<Row>),
    /// So many places without numbers.
    GeneralAdmission(#[serde(deserialize_with = "crate::whole::deserialize")] u32),
}

/// Rows of numbered seats in a show, at most, over all its sections.
///
/// What is said of a show as a whole grows with its rows: [`ShowPublished`] has to fit into an outbox, and
/// [`LayoutPublished`] into one message and one value of a bucket. Blocks and seats hardly matter, because a block says
/// how it stands in a message of its own.
pub const SHOW_ROWS_MAX: usize = 5_000;
/// Seats and places of a show, at most, over all its sections.
pub const SHOW_SEATS_MAX: u64 = 200_000;

impl Seating {
    /// How many rows have numbered seats.
    pub fn rows(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.len(),
            Self::GeneralAdmission(_) => 0,
        }
    }

    /// How many seats or places.
    pub fn capacity(&self) -> u64 {
        match self {
            Self::Rows(rows) => rows.iter().map(|row| u64::from(row.seats)).sum(),
            Self::GeneralAdmission(places) => u64::from(*places),
        }
    }
}

/// A section of a show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SectionPlan {
    /// The section.
    pub section_id: SectionId,
    /// Its name.
    pub name: String,
    /// Price of one seat.
    pub price: Money,
    /// How people sit.
    pub seating: Seating,
}

/// How a lobby lets people in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, utoipa::ToSchema)]
pub struct LobbyRules {
    /// From when on people can join.
    pub opens_at: Timestamp,
    /// People admitted a second, at most.
    #[schema(minimum = 1, maximum = 10_000)]
    #[serde(deserialize_with = "crate::whole::deserialize")]
    pub rate_per_second: u32,
    /// Shopping slots in use at once, at most.
    #[schema(minimum = 1, maximum = 100_000)]
    #[serde(deserialize_with = "crate::whole::deserialize")]
    pub slots_max: u32,
    /// How long a shopping slot lasts, in seconds.
    #[schema(minimum = 10, maximum = 3600)]
    #[serde(deserialize_with = "crate::whole::deserialize")]
    pub slot_seconds: u32,
}

/// A show as it is now; the highest version wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShowPublished {
    /// The show.
    pub show_id: ShowId,
    /// Grows with every change.
    pub version: i64,
    /// Title.
    pub title: String,
    /// Name of the venue.
    pub venue: String,
    /// When it starts.
    pub starts_at: Timestamp,
    /// From when on seats can be held.
    pub sale_opens_at: Timestamp,
    /// Until when an order can be cancelled.
    pub cancel_until: Timestamp,
    /// Currency of every price.
    pub currency: Currency,
    /// The sections.
    pub sections: Vec<SectionPlan>,
    /// Absent: seats are held without a pass.
    pub lobby: Option<LobbyRules>,
}

impl Event for ShowPublished {
    const TYPE: &'static str = "stampede.catalog.show.v1";
    const SOURCE: &'static str = "catalog";

    fn subject(&self) -> String {
        format!("evt.catalog.show.v1.{}", self.show_id)
    }
}

/// A block as it is now; the highest version wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlockState {
    /// The show.
    pub show_id: ShowId,
    /// The section.
    pub section_id: SectionId,
    /// The block.
    pub block_id: BlockId,
    /// Grows with every change; the journal's order.
    pub version: i64,
    /// All seats.
    pub capacity: u32,
    /// Can be held.
    pub free: u32,
    /// Held and not ordered.
    pub held: u32,
    /// Ordered and not paid.
    pub attached: u32,
    /// Sold.
    pub sold: u32,
    /// Never for sale.
    pub blocked: u32,
    /// One letter a seat in seat order (`f`ree, `h`eld, `a`ttached, `s`old, `b`locked); absent for general admission.
    pub seats: Option<String>,
    /// When it was read.
    pub as_of: Timestamp,
}

impl Event for BlockState {
    const TYPE: &'static str = "stampede.inventory.block.v1";
    const SOURCE: &'static str = "inventory";

    fn subject(&self) -> String {
        format!("evt.inventory.block.v1.{}.{}", self.show_id, self.block_id)
    }
}

/// A run of seats of one row that lies in one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RowSpan {
    /// Label of the row.
    pub label: String,
    /// Number of its first seat here.
    pub first_number: u32,
    /// How many seats.
    pub seats: u32,
}

/// Where a block lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlockLayout {
    /// The block.
    pub block_id: BlockId,
    /// Its section.
    pub section_id: SectionId,
    /// Its shard, 0 to 63.
    pub shard: u16,
    /// Seats or places.
    pub capacity: u32,
    /// Its rows, the best first; empty for general admission. Seat index 0 is the first seat of the first span.
    pub rows: Vec<RowSpan>,
}

/// All blocks of a show. Also the value of the show's key in the bucket `layout`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LayoutPublished {
    /// The show.
    pub show_id: ShowId,
    /// The blocks, best first within a section.
    pub blocks: Vec<BlockLayout>,
}

impl Event for LayoutPublished {
    const TYPE: &'static str = "stampede.inventory.layout.v1";
    const SOURCE: &'static str = "inventory";

    fn subject(&self) -> String {
        format!("evt.inventory.layout.v1.{}", self.show_id)
    }
}

/// A pass ended: its holder ordered, or it was closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PassClosed {
    /// The show.
    pub show_id: ShowId,
    /// The pass.
    pub pass_id: PassId,
    /// When.
    pub closed_at: Timestamp,
}

impl Event for PassClosed {
    const TYPE: &'static str = "stampede.inventory.pass.v1";
    const SOURCE: &'static str = "inventory";

    fn subject(&self) -> String {
        format!("evt.inventory.pass.v1.{}", self.show_id)
    }
}

/// How a payment step ended. Definite: an unknown outcome is not published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum PaymentOutcome {
    /// The provider did it.
    Succeeded {
        /// The provider's name for it.
        reference: String,
    },
    /// The card was declined; another may work.
    Declined {
        /// The provider's word, for example `insufficient_funds`.
        reason: String,
    },
    /// The provider definitely will not do it, now or later.
    Refused {
        /// Why.
        reason: String,
    },
}

/// A step of an order at the payment provider has its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentResult {
    /// The step.
    pub step_id: StepId,
    /// The order.
    pub order_id: OrderId,
    /// What was asked.
    pub action: PaymentAction,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: PaymentOutcome,
}

impl Event for PaymentResult {
    const TYPE: &'static str = "stampede.payments.result.v1";
    const SOURCE: &'static str = "payments";

    fn subject(&self) -> String {
        format!("evt.payments.result.v1.{}", self.order_id)
    }

    fn correlation_id(&self) -> Option<String> {
        Some(self.order_id.to_string())
    }
}

/// A mail was handed to the mail server, or given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MailResult {
    /// The step.
    pub step_id: StepId,
    /// The order.
    pub order_id: OrderId,
    /// False: dead-lettered.
    pub sent: bool,
}

impl Event for MailResult {
    const TYPE: &'static str = "stampede.notify.mail.v1";
    const SOURCE: &'static str = "notify";

    fn subject(&self) -> String {
        format!("evt.notify.mail.v1.{}", self.order_id)
    }

    fn correlation_id(&self) -> Option<String> {
        Some(self.order_id.to_string())
    }
}

/// An order reached a state that others care about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderChanged {
    /// The order.
    pub order_id: OrderId,
    /// The show.
    pub show_id: ShowId,
    /// The state reached.
    pub state: OrderState,
    /// Seats.
    pub quantity: u32,
    /// Price.
    pub total: Money,
}

impl Event for OrderChanged {
    const TYPE: &'static str = "stampede.orders.order.v1";
    const SOURCE: &'static str = "orders";

    fn subject(&self) -> String {
        format!("evt.orders.order.v1.{}", self.order_id)
    }

    fn correlation_id(&self) -> Option<String> {
        Some(self.order_id.to_string())
    }
}
