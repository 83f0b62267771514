//! Free ports that stay free.
//!
//! The system's own choice (port 0) comes from the range it also takes for outgoing connections. A port from
//! there, given back by a service that is started again, may be in use as the near end of somebody's connection
//! a moment later, and the service could not come back. So ports are drawn from below that range.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

use anyhow::bail;
use rand::RngExt;

/// Drawn from; Linux begins its own range at 32,768 and macOS at 49,152.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
/// Ports tried before we give up.
const ATTEMPTS_MAX: u32 = 200;

/// Hands out ports that nobody listens on, each only once.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    taken: Vec<u16>,
}

impl Ports {
    /// A port on which nobody listens now.
    pub(crate) fn free(&mut self) -> anyhow::Result<u16> {
        let mut rng = rand::rng();
        for _ in 0..ATTEMPTS_MAX {
            let port = rng.random_range(RANGE);
            if !self.taken.contains(&port) && is_free(port) && reserve(port) {
                self.taken.push(port);
                return Ok(port);
            }
        }
        bail!("no free port found between {} and {} in {ATTEMPTS_MAX} attempts", RANGE.start, RANGE.end)
    }

    /// A port everybody knows, as long as nobody else has it.
    pub(crate) fn fixed(&mut self, port: u16) -> anyhow::Result<u16> {
        if !is_free(port) {
            bail!("port {port} is in use by another program; stop that one, or start with --random-ports");
        }
        self.taken.push(port);
        Ok(port)
    }
}

/// Whether no other process has drawn this port. What was drawn is listened on some moments later, and two platforms that start
/// together would draw the same one now and then. Our services use TCP, so the UDP port of the same number stands for it: the
/// system gives it to one process, and takes it back when that process ends, however it ends.
fn reserve(port: u16) -> bool {
    static RESERVED: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else { return false };
    RESERVED.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    true
}

/// We listen on the IPv4 address alone, but whoever asks for `localhost` may reach another program on the IPv6 one.
fn is_free(port: u16) -> bool {
    // A machine without IPv6 has no such address.
    let elsewhere = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        && elsewhere.err().is_none_or(|error| error.kind() != ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let mut ports = Ports::default();
        let mut given: Vec<u16> = (0..50).map(|_| ports.free().unwrap()).collect();
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 50);
        assert!(given.iter().all(|port| RANGE.contains(port)));
    }

    #[test]
    fn what_another_process_has_drawn_is_not_drawn() {
        let port = Ports::default().free().unwrap();
        // To another process a bound address is the same as to another socket of ours.
        assert!(!reserve(port));
    }

    #[test]
    fn a_known_port_that_is_in_use_is_refused_by_name() {
        let holders =
            [TcpListener::bind((Ipv4Addr::LOCALHOST, 0)), TcpListener::bind((Ipv6Addr::LOCALHOST, 0))];
        // A machine may have no IPv6; both would be missing only without a loopback interface.
        let holders: Vec<_> = holders.into_iter().flatten().collect();
        assert!(!holders.is_empty());
        for holder in &holders {
            let port = holder.local_addr().unwrap().port();
            let refused = Ports::default().fixed(port).unwrap_err().to_string();
            assert!(refused.contains(&port.to_string()) && refused.contains("--random-ports"), "{refused}");
        }
    }
}
