//! A real router with several connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::routing::get;
use http::StatusCode;
use stampede_bulkhead::{BulkheadLayer, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tower::ServiceBuilder;

use crate::bulkhead;

/// axum applies a layer again for every connection and route.
#[tokio::test]
async fn connections_share_the_places_and_idle_ones_take_none() {
    let (entered, leave) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let handler = {
        let (entered, leave) = (Arc::clone(&entered), Arc::clone(&leave));
        move || async move {
            let left = leave.notified();
            entered.add_permits(1);
            left.await;
            "served"
        }
    };
    let refused = async |_: Error<Infallible>| StatusCode::SERVICE_UNAVAILABLE;
    let layers =
        ServiceBuilder::new().layer(HandleErrorLayer::new(refused)).layer(BulkheadLayer::new(bulkhead(2, 0)));
    let router = Router::new().route("/", get(handler)).layer(layers);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    // Connections that say nothing.
    let _idle = [connect(address).await, connect(address).await, connect(address).await];
    let inside = [tokio::spawn(get_once(address)), tokio::spawn(get_once(address))];
    entered.acquire_many(2).await.unwrap().forget();
    let third = get_once(address).await;
    assert!(third.starts_with("HTTP/1.1 503"), "{third}");

    leave.notify_waiters();
    for inside in inside {
        let answer = inside.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let fourth = tokio::spawn(get_once(address));
    entered.acquire().await.unwrap().forget();
    leave.notify_waiters();
    assert!(fourth.await.unwrap().starts_with("HTTP/1.1 200"));
    server.abort();
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

async fn get_once(address: SocketAddr) -> String {
    let mut connection = connect(address).await;
    connection.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}
