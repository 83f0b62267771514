//! The layer as others use it.

mod contract;
mod inbound;
