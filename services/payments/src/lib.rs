#![doc = include_str!("../README.md")]

pub mod app;
pub mod clients;
pub mod config;
pub mod domain;
pub mod events;
mod housekeeping;
pub mod http;
pub mod metrics;
pub mod queue;
pub mod reconcile;
pub mod store;
pub mod worker;
