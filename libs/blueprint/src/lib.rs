#![doc = include_str!("../README.md")]

mod blueprint;
mod call;
mod error;
mod offer;
mod patch;
mod state;

pub use blueprint::{Blueprint, Kind};
pub use call::{Call, Fallback, Via};
pub use error::Invalid;
pub use offer::{Guarantee, Offer, UnknownWay, Way};
pub use patch::InvalidPatch;
pub use state::{Access, Bucket, Database, Sharing, Stream};

#[cfg(test)]
mod tests;
