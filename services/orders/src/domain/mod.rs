//! What an order is and what may happen to it. No I/O, no clock: every function is told the time.

mod buyer;
mod order;
mod reply;
mod saga;
mod step;
mod ticket;
mod timeline;

pub use buyer::{Buyer, CardToken, InvalidInput};
pub use order::{Facts, Order, OrderSecret};
pub use reply::Reply;
pub use saga::{Advance, Plans, Recorded, Transition};
pub use step::{Carrier, Outcome, Pauses, Step, StepKind, StepState};
pub use ticket::Ticket;
