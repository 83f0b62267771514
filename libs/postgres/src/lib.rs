#![doc = include_str!("../README.md")]

mod clock;
mod connection;
mod executor;
mod failure;
mod listener;
mod pool;
mod transaction;

pub use clock::DatabaseClock;
pub use connection::PgConnection;
pub use failure::{Failure, is_of_data, is_outage};
pub use listener::Listener;
pub use pool::{Limits, PgPool};
pub use transaction::Transaction;
