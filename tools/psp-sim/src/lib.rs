#![doc = include_str!("../README.md")]

pub mod app;
pub mod card;
pub mod config;
pub mod domain;
pub mod flights;
pub mod http;
pub mod knobs;
pub mod provider;
pub mod store;
pub mod webhooks;
