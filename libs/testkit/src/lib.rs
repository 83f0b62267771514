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
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

/// Where [`free_port`] looks: below what the system takes for the near ends of connections, and below what
/// `stampede up` draws from.
const PORTS: std::ops::Range<u16> = 10_000..20_000;
const ATTEMPTS_MAX: u32 = 200;

/// A TCP port on 127.0.0.1 that was free a moment ago, drawn at random and by no other test that runs: each keeps the UDP port
/// of the same number until it ends. For programs that must be told a port; use port 0 where you can.
///
/// # Panics
/// When it finds none.
pub fn free_port() -> u16 {
    let drawn = |attempt: u32| {
        // The standard library's randomness: every state hashes by keys of its own.
        let random = RandomState::new().hash_one(attempt);
        PORTS.start + (random % PORTS.len() as u64) as u16
    };
    let is_free = |port: &u16| {
        static RESERVED: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
        let Ok(reservation) = UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)) else { return false };
        RESERVED.lock().unwrap_or_else(PoisonError::into_inner).push(reservation);
        TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
    };
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
