//! The process itself.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use reqwest::StatusCode;
use stampede_testkit::{eventually, free_port};

use crate::stage::{CARD, EMAIL, NAME, PATIENCE, Stage};

/// The service, for no longer than the test.
struct Process {
    child: Child,
    /// Read from the beginning: a process whose pipe is full stands still.
    log: Option<JoinHandle<String>>,
}

impl Process {
    fn start(env: &[(String, String)], word: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_stampede-orders"))
            .arg(word)
            .env_clear()
            .envs(env.iter().cloned())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = thread::spawn(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).unwrap();
            log
        });
        Self { child, log: Some(log) }
    }

    fn terminate(&self) {
        let terminated = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(terminated.success());
    }

    /// How it ended by itself, and what it had logged.
    async fn end(mut self) -> (ExitStatus, String) {
        eventually(PATIENCE, async || self.child.try_wait().unwrap().is_some()).await;
        (self.child.wait().unwrap(), self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(log) = self.log.take() else { return };
        drop(self.child.kill());
        drop(self.child.wait());
        eprintln!("{}", log.join().unwrap_or_default());
    }
}

#[tokio::test]
async fn it_sells_says_nothing_personal_and_ends_in_order() {
    let stage = Stage::set().await;
    let port = free_port();
    let mut env = stage.env(port, &[("RUST_LOG", "debug"), ("LOG_FORMAT", "json")]);
    let process = Process::start(&env, "serve");
    let (http, cart) = (reqwest::Client::new(), stage.cart());
    let url = format!("http://127.0.0.1:{port}/v1/orders");
    let place = async || {
        let request = http.post(&url).header("stampede-session", cart.session.to_string());
        let request = request.header("idempotency-key", &cart.key).json(&cart.body);
        request.send().await.map(|response| response.status())
    };
    eventually(PATIENCE, async || place().await.is_ok_and(|status| status == StatusCode::CREATED)).await;

    process.terminate();
    let (status, log) = process.end().await;
    assert!(status.success(), "{log}");
    assert!(log.contains("\"trace_id\""), "{log}");
    for marker in [NAME, EMAIL, CARD, "marker"] {
        assert!(!log.contains(marker), "{marker} is in the log: {log}");
    }

    env.retain(|(key, _)| key != "TICKET_SIGNING_KEY");
    let (status, log) = Process::start(&env, "serve").end().await;
    assert!(!status.success());
    assert!(log.contains("TICKET_SIGNING_KEY is not set"), "{log}");
    let (status, log) = Process::start(&env, "migrate").end().await;
    assert!(status.success(), "{log}");
}
