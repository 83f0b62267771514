//! The bounds of the accept loop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::get;
use futures::StreamExt;
use stampede_testkit::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
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

async fn connected(served: &Served, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(served.http).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_silent_connection_makes_room_for_the_next() {
    let served = Served::start(
        node(&[("HTTP_CONNECTIONS_MAX", "2"), ("HTTP_CONNECTIONS_PER_ADDRESS_MAX", "2")]),
        router(),
    )
    .await;
    let mut silent = TcpStream::connect(served.http).await.unwrap();
    let mut second = connected(&served, REQUEST).await;
    read_until(&mut second, "127.0.0.1").await;
    let mut third = connected(&served, REQUEST).await;
    read_until(&mut third, "127.0.0.1").await;
    // A head that does not come to its end is silence too.
    silent.write_all(b"GET / HT").await.unwrap();
    let end = timeout(PATIENCE, silent.read(&mut [0; 1])).await.unwrap();
    assert!(!matches!(end, Ok(1..)), "{end:?}");
    second.write_all(REQUEST).await.unwrap();
    read_until(&mut second, "127.0.0.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_refused_with_503_while_all_others_are_busy() {
    let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, waits) = (begun.clone(), release.clone());
    let slow = get(move || {
        let (begins, waits) = (begins.clone(), waits.clone());
        async move {
            begins.notify_one();
            waits.notified().await;
            "127.0.0.1"
        }
    });
    let served = Served::start(node(&[("HTTP_CONNECTIONS_MAX", "1")]), Router::new().route("/", slow)).await;
    let mut first = connected(&served, REQUEST).await;
    begun.notified().await;
    let mut second = connected(&served, REQUEST).await;
    let refusal = read_until(&mut second, "\"busy\"").await;
    assert!(refusal.starts_with("HTTP/1.1 503 ") && refusal.contains("retry-after: 1"), "{refusal}");
    release.notify_one();
    read_until(&mut first, "127.0.0.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_events_leave_half_of_the_connections_to_requests() {
    let events = get(async || {
        let first = futures::stream::iter([Ok::<_, Infallible>("data: {}\n\n")]);
        let body = Body::from_stream(first.chain(futures::stream::pending()));
        ([("content-type", "text/event-stream")], body)
    });
    let router = router().route("/events", events);
    let served = Served::start(
        node(&[("HTTP_CONNECTIONS_MAX", "2"), ("HTTP_CONNECTIONS_PER_ADDRESS_MAX", "2")]),
        router,
    )
    .await;
    let follow = b"GET /events HTTP/1.1\r\nhost: here\r\n\r\n";
    let mut first = connected(&served, follow).await;
    read_until(&mut first, "data").await;
    let mut second = connected(&served, follow).await;
    read_until(&mut second, "\"busy\"").await;
    drop(second);
    read_until(&mut connected(&served, REQUEST).await, "127.0.0.1").await;
    drop(first);
    eventually(PATIENCE, async || {
        let mut again = connected(&served, follow).await;
        read_until(&mut again, "}").await.contains("data")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_stop_probes() {
    let served = Served::start(node(&[]), router()).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(served.admin).await.unwrap());
    }
    assert_eq!(timeout(PATIENCE, served.admin("/livez")).await.unwrap().status(), 200);
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
