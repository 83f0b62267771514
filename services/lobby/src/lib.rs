//! The waiting room. See the README beside this crate.

pub mod app;
pub mod clients;
pub mod config;
pub mod domain;
pub mod events;
pub mod http;
pub mod metrics;
pub mod stock;
pub mod store;
