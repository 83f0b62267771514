//! The bounds of the accept loop.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{PATIENCE, Served, node};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n";

fn router() -> Router {
    Router::new().route("/", get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string()))
}

/// Reads until `end` has come.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut chunk = [0; 1024];
    while !text.contains(end) {
        let read = timeout(PATIENCE, stream.read(&mut chunk)).await.unwrap().unwrap();
        assert!(read > 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_knows_the_address_of_its_peer() {
    let served = Served::start(node(&[]), router()).await;
    let mut stream = TcpStream::connect(served.http).await.unwrap();
    let own = stream.local_addr().unwrap().to_string();
    stream.write_all(REQUEST).await.unwrap();
    read_until(&mut stream, &own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_above_the_limit_waits_for_one_to_end() {
    let served = Served::start(node(&[("HTTP_CONNECTIONS_MAX", "1")]), router()).await;
    let mut first = TcpStream::connect(served.http).await.unwrap();
    first.write_all(REQUEST).await.unwrap();
    read_until(&mut first, "127.0.0.1").await;

    let mut second = TcpStream::connect(served.http).await.unwrap();
    second.write_all(REQUEST).await.unwrap();
    let mut byte = [0; 1];
    // Nothing can be waited for but the absence of an answer, so this takes its time.
    let waited = timeout(std::time::Duration::from_millis(200), second.read(&mut byte)).await;
    assert!(waited.is_err(), "the second connection was served beside the first");

    drop(first);
    read_until(&mut second, "127.0.0.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_closed() {
    let served = Served::start(node(&[("HTTP_IDLE_TIMEOUT_MS", "500")]), router()).await;
    let mut silent = TcpStream::connect(served.http).await.unwrap();
    silent.write_all(b"GET / HT").await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, silent.read_to_end(&mut rest)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused() {
    let served = Served::start(node(&[]), router()).await;
    let mut stream = TcpStream::connect(served.http).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: here\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024));
    // The server may answer and close before it has read everything.
    let _maybe_cut = stream.write_all(head.as_bytes()).await;
    read_until(&mut stream, "HTTP/1.1 431").await;
}
