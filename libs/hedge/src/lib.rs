#![doc = include_str!("../README.md")]

mod attempt;
mod future;
mod hedge;
mod latencies;
mod layer;
mod policy;
mod service;

pub use future::ResponseFuture;
pub use hedge::{Hedge, Snapshot};
pub use layer::{Classify, HedgeLayer, Verdict};
pub use policy::{Delay, HedgePolicy, InvalidPolicy};
pub use service::HedgeService;
