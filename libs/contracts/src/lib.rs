#![doc = include_str!("../README.md")]

pub mod api;
pub mod command;
mod described;
pub mod event;
pub mod function;
pub mod header;
pub mod heartbeat;
pub mod id;
pub mod inventory;
mod key;
pub mod money;
pub mod orders;
pub mod problem;
pub mod route;
pub mod schema;
pub mod signed;
pub mod timestamp;
pub mod topology;
pub mod whole;

pub use event::Event;
pub use function::{Class, Function, Guarantee, Repeatable};
pub use heartbeat::Heartbeat;
pub use id::{
    BlockId, HoldId, LobbyTicket, OrderId, PassId, SeatId, SectionId, SessionId, ShowId, StepId, TicketId,
    VenueId,
};
pub use key::HasKey;
pub use money::{Currency, Money};
pub use problem::{Code, Problem, Refusal};
pub use route::Route;
pub use timestamp::Timestamp;
