#![doc = include_str!("../README.md")]

pub mod http;
mod init;
mod logs;
mod metrics;
mod settings;
pub mod trace;

pub use init::{Error, FLUSH_WITHIN, Telemetry, init};
pub use metrics::{Metrics, RenderError, meter};
pub use settings::{LogFormat, Settings};
