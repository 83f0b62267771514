//! Tickets by e-mail. See the README beside this crate.

pub mod app;
pub mod clients;
pub mod config;
pub mod domain;
pub mod events;
pub mod store;
