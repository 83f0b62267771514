//! The process itself.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use reqwest::StatusCode;
use stampede_testkit::{eventually, free_port};

use crate::stage::{CARD, EMAIL, NAME, PATIENCE, Stage};

fn start(env: Vec<(String, String)>, word: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_stampede-orders"))
        .arg(word)
        .env_clear()
        .envs(env)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn it_sells_says_nothing_personal_and_ends_in_order() {
    let stage = Stage::set().await;
    let port = free_port();
    let mut env = stage.env(port, &[("RUST_LOG", "debug"), ("LOG_FORMAT", "json")]);
    let mut process = start(env.clone(), "serve");
    let (http, cart) = (reqwest::Client::new(), stage.cart());
    let url = format!("http://127.0.0.1:{port}/v1/orders");
    let place = async || {
        let request = http.post(&url).header("stampede-session", cart.session.to_string());
        let request = request.header("idempotency-key", &cart.key).json(&cart.body);
        request.send().await.map(|response| response.status())
    };
    eventually(PATIENCE, async || place().await.is_ok_and(|status| status == StatusCode::CREATED)).await;

    let terminated = Command::new("kill").arg(process.id().to_string()).status().unwrap();
    assert!(terminated.success());
    let mut log = String::new();
    process.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    eventually(PATIENCE, async || process.try_wait().unwrap().is_some()).await;
    assert!(process.wait().unwrap().success(), "{log}");
    assert!(log.contains("\"trace_id\""), "{log}");
    for marker in [NAME, EMAIL, CARD, "marker"] {
        assert!(!log.contains(marker), "{marker} is in the log: {log}");
    }

    env.retain(|(key, _)| key != "TICKET_SIGNING_KEY");
    let mut process = start(env.clone(), "serve");
    let mut log = String::new();
    process.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(!process.wait().unwrap().success());
    assert!(log.contains("TICKET_SIGNING_KEY is not set"), "{log}");
    assert!(start(env, "migrate").wait().unwrap().success());
}
