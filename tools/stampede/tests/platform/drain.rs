//! The end of a process, as those see it who still talk to it.

use std::process::Command;
use std::time::Duration;

use stampede_testkit::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{PATIENCE, Stage};

/// Less than the time after which a process that was asked to end is killed.
const DELAY_MS: u64 = 25_000;

/// Whether a new connection is accepted and its request answered, whatever with.
async fn answers(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET /nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.starts_with("HTTP/1.1 "))
    };
    tokio::time::timeout(Duration::from_secs(5), ask).await.is_ok_and(|answer| answer.unwrap_or(false))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listener_of_every_service_answers_new_connections_until_its_drain_delay_is_over() {
    let services = ["psp-sim", "catalog", "lobby", "inventory", "orders", "payments", "notify", "gateway"];
    let settings = services.map(|service| format!("{service}.DRAIN_DELAY_MS={DELAY_MS}"));
    let stage = Stage::start(&settings.each_ref().map(String::as_str)).await;
    let run = stage.platform.run_file().unwrap();
    let ours = run.processes.iter().filter(|entry| services.contains(&entry.kind.as_str()));
    let (mut seen, began) = (0, tokio::time::Instant::now());
    let signal = |signal: &str| {
        let pids = ours.clone().map(|entry| entry.identity.as_ref().unwrap().pid.to_string());
        assert!(Command::new("kill").arg(signal).args(pids).status().unwrap().success());
    };
    signal("-TERM");
    for entry in ours.clone() {
        let readyz = format!("http://127.0.0.1:{}/readyz", entry.ports["admin"]);
        eventually(PATIENCE, async || {
            reqwest::get(&readyz).await.is_ok_and(|answer| answer.status().as_u16() == 503)
        })
        .await;
        for (listener, port) in &entry.ports {
            assert!(answers(*port).await, "{listener} of {}", entry.name);
            seen += 1;
        }
    }
    assert!(began.elapsed() < Duration::from_millis(DELAY_MS), "too slow a machine to tell");
    assert!(seen > services.len(), "more than the admin listener of each");
    // Nothing is learned from waiting for the end of the delay.
    signal("-KILL");
}
