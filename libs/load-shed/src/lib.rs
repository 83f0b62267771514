#![doc = include_str!("../README.md")]

mod acquire;
mod error;
mod future;
mod gate;
mod layer;
mod limit;
mod permit;
mod priority;
mod queue;
mod service;
mod settings;
mod shed;
mod slots;
mod snapshot;
mod sync;
mod window;

pub use acquire::Acquire;
pub use error::Error;
pub use future::ResponseFuture;
pub use layer::{Classify, LoadShedLayer, PriorityOf};
pub use permit::{Permit, Sample};
pub use priority::{CLASSES, Priority};
pub use service::LoadShedService;
pub use settings::{InvalidSettings, Limits, Settings, Waiting};
pub use shed::{LoadShed, Reason, Shed};
pub use snapshot::Snapshot;
