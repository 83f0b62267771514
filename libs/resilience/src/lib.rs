#![doc = include_str!("../README.md")]

mod count;
mod destination;
mod destinations;
mod error;
mod gate;
mod meaning;
mod metrics;
mod policy;
mod registry;
mod stack;

pub use count::{Count, CountFuture, CountLayer, Totals};
pub use destination::{Destination, Health};
pub use destinations::{Destinations, InvalidDestination};
pub use error::Error;
pub use gate::{Gate, busy};
pub use meaning::{Meaning, Means, Sees};
pub use policy::{
    BreakerPolicy, BudgetPolicy, BulkheadPolicy, DestinationPolicy, HedgingPolicy, InvalidPolicy,
    RepeatPolicy, Stack,
};
pub use registry::destinations;
pub use stack::{Hedged, HedgingStack, Repeated, RepeatingStack, Single, SingleStack};
pub use stampede_circuit_breaker::Forced;
