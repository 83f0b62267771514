//! The end, in order.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use stampede_testkit::eventually;
use tokio::sync::Notify;

use crate::{PATIENCE, Served, node};

/// A handler that says that it began and waits until it may answer.
#[derive(Clone, Default)]
struct Slow {
    began: Arc<Notify>,
    may_answer: Arc<Notify>,
}

impl Slow {
    fn router(&self) -> Router {
        async fn handler(State(slow): State<Slow>) -> &'static str {
            slow.began.notify_one();
            slow.may_answer.notified().await;
            "answered"
        }
        Router::new()
            .route("/slow", get(handler))
            .route("/quick", get(async || "answered"))
            .with_state(self.clone())
    }
}

fn terminate_myself() {
    let pid = std::process::id().to_string();
    let status = std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_open_requests_finish_before_the_workers_end() {
    let slow = Slow::default();
    let node = node(&[]);
    let shutdown = node.shutdown();
    let (worker_ended, child_ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (token, flag) = (node.shutdown(), worker_ended.clone());
    node.tasks().spawn(async move {
        token.cancelled().await;
        flag.store(true, Ordering::Release);
    });
    let (token, flag) = (node.shutdown(), child_ended.clone());
    node.supervise("child", move || {
        let (token, flag) = (token.clone(), flag.clone());
        async move {
            token.cancelled().await;
            flag.store(true, Ordering::Release);
            Ok(())
        }
    });
    let served = Served::start(node, slow.router()).await;
    let open = tokio::spawn(served.client.get(served.url("/slow")).send());
    slow.began.notified().await;

    terminate_myself();
    served.draining.cancelled().await;
    let stranger = reqwest::Client::new();
    eventually(PATIENCE, async || stranger.get(served.url("/quick")).send().await.is_err()).await;
    assert_eq!(served.admin("/readyz").await.status(), 503);
    assert_eq!(served.admin("/livez").await.status(), 200);
    assert!(!shutdown.is_cancelled(), "the request may still need the workers");

    slow.may_answer.notify_one();
    assert_eq!(open.await.unwrap().unwrap().text().await.unwrap(), "answered");
    assert_eq!(served.exit().await, ExitCode::SUCCESS);
    assert!(worker_ended.load(Ordering::Acquire));
    assert!(child_ended.load(Ordering::Acquire));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listener_takes_requests_until_the_drain_delay_is_over() {
    let router = || Router::new().route("/", get(async || "here"));
    let node = node(&[("DRAIN_DELAY_MS", "600000")]);
    let (listener, beside) = node.listen_on(([127, 0, 0, 1], 0).into()).await.unwrap();
    node.serve_beside(listener, router());
    let served = Served::start(node, router()).await;
    served.draining.cancel();
    eventually(PATIENCE, async || served.admin("/readyz").await.status() == 503).await;
    for address in [served.http, beside] {
        // A client of its own, so that it is a new connection.
        assert_eq!(reqwest::get(format!("http://{address}/")).await.unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_request_of_every_listener_is_finished_before_the_workers_end() {
    let slow = Slow::default();
    let node = node(&[("DRAIN_TIMEOUT_MS", "600000")]);
    let shutdown = node.shutdown();
    let (listener, beside) = node.listen_on(([127, 0, 0, 1], 0).into()).await.unwrap();
    node.serve_beside(listener, slow.router());
    let served = Served::start(node, Router::new()).await;
    let open = tokio::spawn(reqwest::get(format!("http://{beside}/slow")));
    slow.began.notified().await;
    served.draining.cancel();
    let refused = async || reqwest::get(format!("http://{beside}/quick")).await.is_err();
    eventually(PATIENCE, refused).await;
    assert!(!shutdown.is_cancelled(), "the request may still need the workers");

    slow.may_answer.notify_one();
    assert_eq!(open.await.unwrap().unwrap().text().await.unwrap(), "answered");
    assert_eq!(served.exit().await, ExitCode::SUCCESS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_end_is_cut_off_on_every_listener() {
    let slow = [Slow::default(), Slow::default()];
    let node = node(&[("DRAIN_TIMEOUT_MS", "50")]);
    let (listener, beside) = node.listen_on(([127, 0, 0, 1], 0).into()).await.unwrap();
    node.serve_beside(listener, slow[1].router());
    let served = Served::start(node, slow[0].router()).await;
    let urls = [served.url("/slow"), format!("http://{beside}/slow")];
    let open = urls.map(|url| tokio::spawn(reqwest::get(url)));
    slow[0].began.notified().await;
    slow[1].began.notified().await;
    assert_eq!(served.stop().await, ExitCode::SUCCESS);
    for request in open {
        assert!(request.await.unwrap().is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let router = Router::new().route("/", get(async || "here"));
    let served = Served::start(node(&[("DRAIN_TIMEOUT_MS", "600000")]), router).await;
    assert_eq!(served.get("/").await.status(), 200);
    assert_eq!(served.stop().await, ExitCode::SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_gave_up_ends_the_process_with_a_failure() {
    let node = node(&[]);
    node.supervise("hopeless", async || Err("no".into()));
    assert_eq!(node.idle().await, ExitCode::FAILURE);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_end_is_not_waited_for_for_ever() {
    let node = node(&[]);
    node.tasks().spawn(std::future::pending::<()>());
    node.draining().cancel();
    assert_eq!(node.idle().await, ExitCode::SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_by_itself_is_a_failure_and_not_waited_for() {
    let node = node(&[("DRAIN_DELAY_MS", "600000"), ("DRAIN_TIMEOUT_MS", "600000")]);
    let started = tokio::time::Instant::now();
    assert_eq!(node.serve_with(async |_stop| ()).await, ExitCode::FAILURE);
    assert!(started.elapsed() < PATIENCE);
}
