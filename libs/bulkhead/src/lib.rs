#![doc = include_str!("../README.md")]

mod bulkhead;
mod error;
mod future;
mod hold;
mod layer;
mod permits;
mod sync;

pub use bulkhead::{Acquire, Bulkhead, BulkheadSettings, InvalidBulkhead, Permit, Snapshot};
pub use error::{Error, Refused};
pub use future::ResponseFuture;
pub use hold::{Held, Hold, UntilAnswer, UntilBodyEnds};
pub use layer::{BulkheadLayer, BulkheadService};
