//! Our patterns beside the best libraries of their kind, in one run: `cargo stampede bench resilience`.
//!
//! The code is in `benches/`; this crate is there so that nobody else has to build the peers.
