#![doc = include_str!("../README.md")]

pub mod app;
pub mod config;
pub mod domain;
mod events;
mod forward;
pub mod inventory;
mod leader;
mod metrics;
mod outlook;
mod problem;
pub mod publisher;
mod rpc;
mod shows;
pub mod store;
mod sweeper;
