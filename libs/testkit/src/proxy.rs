//! A way that can be blocked: a TCP proxy for one test.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const BUFFER_BYTES: usize = 16 * 1024;

/// A proxy in front of a server. Its connections end with this value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    _accepting: JoinSet<()>,
}

/// What passes.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    is_frozen: bool,
    /// Connections before this one never get anything again.
    lost_before: u64,
    /// Connections so far.
    accepted: u64,
}

impl Way {
    fn is_open_to(self, nth: u64) -> bool {
        !self.is_frozen && nth >= self.lost_before
    }
}

impl Proxy {
    /// A proxy in front of the server of a URL such as `postgres://user@127.0.0.1:5432/database`.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(url: &str) -> Self {
        let upstream = split(url).1.to_owned();
        let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await {
            Ok(listener) => listener,
            Err(error) => super::fail(&format!("no proxy: {error}")),
        };
        let address =
            listener.local_addr().unwrap_or_else(|error| super::fail(&format!("no address: {error}")));
        let way = watch::Sender::new(Way::default());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, upstream, way.clone()));
        Self { address, way, _accepting: accepting }
    }

    /// The URL that leads through it.
    pub fn url(&self, url: &str) -> String {
        let (before, _, after) = split(url);
        format!("{before}{}{after}", self.address)
    }

    /// From now on nothing passes, in either direction, not even the end of a connection. New ones are accepted and
    /// answered by nobody: so it is when a machine, or the way to it, vanishes.
    pub fn freeze(&self) {
        self.way.send_modify(|way| way.is_frozen = true);
    }

    /// What was held back passes.
    pub fn thaw(&self) {
        self.way.send_modify(|way| way.is_frozen = false);
    }

    /// Nothing passes over the connections that there are, ever again; new ones work: another machine has taken over.
    pub fn lose(&self) {
        self.way.send_modify(|way| way.lost_before = way.accepted);
    }
}

/// What stands before host and port, both of them, and what stands behind.
fn split(url: &str) -> (&str, &str, &str) {
    let scheme = url.find("://").map_or(0, |at| at + 3);
    let end = url[scheme..].find(['/', '?']).map_or(url.len(), |at| scheme + at);
    let host = url[..end].rfind('@').map_or(scheme, |at| at + 1);
    (&url[..host], &url[host..end], &url[end..])
}

async fn accept(listener: TcpListener, upstream: String, way: watch::Sender<Way>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let nth = way.borrow().accepted;
        way.send_modify(|way| way.accepted += 1);
        let (upstream, mut open) = (upstream.clone(), way.subscribe());
        connections.spawn(async move {
            let Ok(_) = open.wait_for(|way| way.is_open_to(nth)).await else { return };
            let Ok(server) = TcpStream::connect(upstream).await else { return };
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::join!(
                forward(from_client, to_server, open.clone(), nth),
                forward(from_server, to_client, open, nth)
            );
        });
        // Forgets those that ended.
        while connections.try_join_next().is_some() {}
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>, nth: u64) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if way.wait_for(|way| way.is_open_to(nth)).await.is_err() || read == 0 {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
