#![doc = include_str!("../README.md")]

mod database;
pub mod layer;
mod nats;
mod provision;
mod rights;
mod spans;
mod wait;

pub use database::{Database, fresh_database, postgres_url};
pub use nats::Nats;
pub use provision::provision;
pub use rights::rights;
pub use spans::{Seen, Spans};
pub use wait::eventually;

use std::net::{Ipv4Addr, TcpListener};

/// A TCP port on 127.0.0.1 that nobody listened on a moment ago.
///
/// Another process may take it before the caller does, so this is for programs that insist on being told a port;
/// who can bind port 0 should.
///
/// # Panics
/// When the system has no free port.
pub fn free_port() -> u16 {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    match bound {
        Ok(address) => address.port(),
        Err(error) => fail(&format!("no free port: {error}")),
    }
}

/// Ends the test. Every function of this crate comes here when the ground it stands on is missing.
#[track_caller]
#[expect(
    clippy::panic,
    reason = "a test whose servers are missing cannot go on, and has nobody to report to"
)]
fn fail(message: &str) -> ! {
    panic!("{message}")
}
