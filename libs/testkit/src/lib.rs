#![doc = include_str!("../README.md")]

mod database;
pub mod layer;
mod nats;
mod provision;
mod proxy;
mod rights;
mod spans;
mod wait;

pub use database::{Database, fresh_database, postgres_url};
pub use nats::Nats;
pub use provision::provision;
pub use proxy::Proxy;
pub use rights::rights;
pub use spans::{Seen, Spans};
pub use wait::eventually;

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

/// Where [`free_port`] looks: below what the system takes for the near ends of connections, and below what
/// `stampede up` draws from.
const PORTS: std::ops::Range<u16> = 10_000..20_000;
const ATTEMPTS_MAX: u32 = 200;

/// A TCP port on 127.0.0.1 that nobody listened on a moment ago, drawn by chance.
///
/// Another process may take it before the caller does, so this is for programs that insist on being told a port;
/// who can bind port 0 should.
///
/// # Panics
/// When it finds none.
pub fn free_port() -> u16 {
    let drawn = |attempt: u32| {
        // The standard library's randomness: every state hashes by keys of its own.
        let random = RandomState::new().hash_one(attempt);
        PORTS.start + (random % PORTS.len() as u64) as u16
    };
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (0..ATTEMPTS_MAX)
        .map(drawn)
        .find(is_free)
        .unwrap_or_else(|| fail(&format!("no free port in {PORTS:?} in {ATTEMPTS_MAX} attempts")))
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
