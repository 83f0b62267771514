//! The three doors: the merchant's API, the buyers' tokens, the operator's knobs.

mod api;
mod knobs;
mod reply;
mod tokens;

pub use api::router as api;
pub use knobs::router as knobs;
pub use tokens::{cors, router as tokens};
