#![doc = include_str!("../README.md")]

pub mod ambient;
mod bench;
mod blueprint;
mod cargo;
mod chaos;
pub mod cli;
pub mod client;
mod cluster;
mod commands;
pub mod control;
mod env;
mod http;
mod images;
mod infra;
mod layers;
mod layout;
mod leftovers;
pub mod load;
pub mod platform;
mod ports;
mod process;
mod progress;
pub mod provision;
pub mod run_file;
pub mod scratch;
pub mod secrets;
mod seed;
mod services;
mod signals;
pub mod state;
pub mod verify;

pub use process::identity::Identity;
