//! The contract of a layer, and a real server.
#![cfg(not(stampede_loom))]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::convert::Infallible;

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use stampede_circuit_breaker::{
    Change, CircuitBreaker, CircuitBreakerLayer, Counts, Error, Outcome, Policy, State, Trip, Why,
};
use stampede_deadline::Clock;
use stampede_testkit::Spans;
use stampede_testkit::layer::{Ask, Failed, Probe, ask, keeps_the_contract, shares_its_state};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower::Layer;

fn breaker(failures: u32) -> CircuitBreaker {
    CircuitBreaker::observed(Policy::new(Trip::consecutive(failures).unwrap()), Clock::tokio(), |_| {})
}

fn outcome(answer: &Result<(), Failed>) -> Outcome {
    if answer.is_ok() { Outcome::Success } else { Outcome::Failure }
}

#[tokio::test(start_paused = true)]
async fn it_keeps_the_contract() {
    keeps_the_contract(|| CircuitBreakerLayer::new(breaker(10_000), outcome)).await;
}

#[tokio::test(start_paused = true)]
async fn it_shares_its_state() {
    let layer = CircuitBreakerLayer::new(breaker(3), outcome);
    shares_its_state(
        &layer,
        async |service| {
            while matches!(ask(service, Ask::Fail).await, Err(Error::Inner(_))) {}
        },
    )
    .await;
}

/// One request on a connection that stays open; its status.
async fn status(connection: &mut TcpStream, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 1024];
    let length = connection.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_connection_of_a_server_sees_the_same_circuit() {
    let (teller, mut told) = mpsc::channel(8);
    let policy = Policy::new(Trip::consecutive(3).unwrap());
    let breaker =
        CircuitBreaker::observed(policy, Clock::tokio(), move |change| teller.try_send(change).unwrap());
    let by_status = |answer: &Result<Response, Infallible>| match answer {
        Ok(response) if response.status().is_server_error() => Outcome::Failure,
        _ => Outcome::Success,
    };
    let refuse = HandleErrorLayer::new(async |error: Error<Infallible>| match error {
        Error::Open(refused) => (StatusCode::SERVICE_UNAVAILABLE, refused.to_string()).into_response(),
        Error::Inner(never) => match never {},
    });
    let router = Router::new()
        .route("/well", get(async || "well"))
        .route("/ill", get(async || StatusCode::INTERNAL_SERVER_ERROR))
        .layer((refuse, CircuitBreakerLayer::new(breaker, by_status)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    let mut connections = Vec::new();
    for _ in 0..4 {
        let mut connection = TcpStream::connect(address).await.unwrap();
        assert_eq!(status(&mut connection, "/well").await, 200);
        connections.push(connection);
    }
    for connection in &mut connections[..3] {
        assert_eq!(status(connection, "/ill").await, 500);
    }
    for connection in &mut connections {
        assert_eq!(status(connection, "/well").await, 503);
    }
    let change = Change {
        from: State::Closed,
        to: State::Open,
        why: Why::Failures(Counts { calls: 3, failures: 3 }),
        generation: 1,
    };
    assert_eq!(told.try_recv(), Ok(change));
    assert!(told.try_recv().is_err(), "one event for one change");
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_trace_shows_what_the_circuit_refused() {
    let spans = Spans::record();
    let mut service = CircuitBreakerLayer::new(breaker(1), outcome).layer(Probe::default());
    assert_eq!(ask(&mut service, Ask::Fail).await, Err(Error::Inner(Failed)));
    assert_eq!(spans.seen(), []);
    assert!(matches!(ask(&mut service, Ask::Answer).await, Err(Error::Open(_))));
    assert_eq!(spans.names(), [("circuit open", None)]);
    assert_eq!(spans.seen()[0].fields["otel.status_code"], "ERROR");
}
