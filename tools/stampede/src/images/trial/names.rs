//! Host names for programs that have nothing but `/etc/hosts` and `/etc/resolv.conf`: one in each, and one in neither.

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

/// In `/etc/hosts`.
pub(super) const IN_HOSTS: &str = "hosts.stampede.test";
/// Known to the name server alone.
const IN_DNS: &str = "dns.stampede.test";
/// Known to nobody.
const UNKNOWN: &str = "unknown.stampede.test";

/// What is said of a host that was found and on which nobody listens, and of one that was not found.
pub(super) const REFUSED: &str = "Connection refused";
const NOT_FOUND: &str = "failed to lookup address information";

/// Where our name server is: an address of this machine that nobody else uses. `resolv.conf` can name no other port.
const SERVER: Ipv4Addr = Ipv4Addr::new(127, 83, 84, 65);
const PORT: u16 = 53;
/// The longest query over UDP without an agreement on more (RFC 1035, 2.3.4).
const QUERY_MAX: usize = 512;
const HEADER: usize = 12;
/// A, IN.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];

/// What a container would have.
pub(super) fn hosts() -> String {
    format!("127.0.0.1 localhost\n127.0.0.1 {IN_HOSTS}\n")
}

/// What a container would have. One short attempt, because the server is on this machine or not at all.
pub(super) fn resolv_conf() -> String {
    format!("nameserver {SERVER}\noptions timeout:1 attempts:1\n")
}

/// A name server, where we may be one.
#[derive(Debug)]
pub(super) struct Names {
    server: Option<AbortOnDropHandle<()>>,
}

impl Names {
    /// Starts it; it ends with this value.
    pub(super) async fn serve() -> Result<Self> {
        match UdpSocket::bind((SERVER, PORT)).await {
            Ok(socket) => Ok(Self { server: Some(AbortOnDropHandle::new(tokio::spawn(answer_all(socket)))) }),
            // Port 53 is root's, or somebody serves names already.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::AddrInUse) => {
                Ok(Self { server: None })
            }
            Err(error) => Err(error).with_context(|| format!("no name server can listen on {SERVER}:{PORT}")),
        }
    }

    /// All that can be tried here, and what should be said of each; nobody listens on any.
    pub(super) fn all(&self) -> Vec<(&'static str, &'static str)> {
        let mut all = vec![(IN_HOSTS, REFUSED), (UNKNOWN, NOT_FOUND)];
        all.extend(self.server.is_some().then_some((IN_DNS, REFUSED)));
        all
    }

    /// What is looked up.
    pub(super) fn described(&self) -> &'static str {
        match self.server {
            Some(_) => "names of /etc/hosts, of DNS, of nobody",
            None => "names of /etc/hosts, of nobody (not of DNS: only root may be a name server)",
        }
    }
}

async fn answer_all(socket: UdpSocket) {
    let mut query = [0; QUERY_MAX];
    while let Ok((length, from)) = socket.recv_from(&mut query).await {
        if let Some(answer) = query.get(..length).and_then(answer) {
            // Lost like any datagram; whoever asked says so.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// The answer to a query with one question, as in RFC 1035.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let (id, question) = (query.get(..2)?, question(query.get(HEADER..)?)?);
    let (name, kind) = question.split_at(question.len() - ADDRESS.len());
    let (known, address) = (name == wire(IN_DNS), kind == ADDRESS);
    // A response with recursion; the last four bits are 3 when there is no such name.
    let flags = [0x81, if known { 0x80 } else { 0x83 }];
    let answers = u8::from(known && address);
    let mut answer = [id, &flags, &[0, 1, 0, answers, 0, 0, 0, 0], question].concat();
    if known && address {
        // The name of the question, A, IN, to be kept for 0 s, 4 bytes.
        answer.extend([0xc0, 0x0c]);
        answer.extend(ADDRESS);
        answer.extend([0, 0, 0, 0, 0, 4]);
        answer.extend(Ipv4Addr::LOCALHOST.octets());
    }
    Some(answer)
}

/// Name, type and class at the beginning of this.
fn question(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    while let length @ 1.. = *bytes.get(at)? {
        at += usize::from(length) + 1;
    }
    bytes.get(..at + 1 + ADDRESS.len())
}

/// A name as in a message: labels, each after its length, and an empty one.
fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').chain([""]);
    let labels =
        labels.map(|label| [&[u8::try_from(label.len()).unwrap_or_default()], label.as_bytes()].concat());
    labels.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u8) -> Vec<u8> {
        let header = [7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        // What follows the question, here an EDNS record, is nothing to us.
        [&header[..], &wire(name), &[0, kind, 0, 1], &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]].concat()
    }

    #[test]
    fn the_name_it_knows_has_an_address_of_one_kind() {
        let known = answer(&query(IN_DNS, 1)).unwrap();
        assert_eq!(known[..8], [7, 8, 0x81, 0x80, 0, 1, 0, 1]);
        assert!(known.ends_with(&[0, 4, 127, 0, 0, 1]));
        let other_kind = answer(&query(IN_DNS, 28)).unwrap();
        assert_eq!(other_kind[..8], [7, 8, 0x81, 0x80, 0, 1, 0, 0]);
    }

    #[test]
    fn all_others_are_unknown_and_what_is_no_query_gets_no_answer() {
        for name in [UNKNOWN, IN_HOSTS] {
            assert_eq!(answer(&query(name, 1)).unwrap()[..8], [7, 8, 0x81, 0x83, 0, 1, 0, 0]);
        }
        let whole = query(IN_DNS, 1);
        for length in [0, 5, 13, 20] {
            assert_eq!(answer(&whole[..length]), None, "{length}");
        }
    }
}
