//! Extractors that say no with a problem.

mod json;
mod parameters;
mod session;

pub use json::Json;
pub use parameters::{Path, Query};
pub use session::Session;
