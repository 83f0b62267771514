//! The catalog: venues, shows, sections and prices, and a copy of how many seats are left.
//!
//! See the README beside this crate.

pub mod app;
pub mod availability;
pub mod config;
pub mod domain;
pub mod events;
pub mod http;
pub mod store;
