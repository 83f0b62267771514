//! What happens below HTTP: heads that trickle in, bytes that are none, and connections that are too many.

use std::net::SocketAddr;

use stampede_contracts::{Code, Problem};
use stampede_testkit::{eventually, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::{PATIENCE, Stage};

const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\naccept: text/plain\r\n\r\n";

async fn connect(stage: &Stage) -> TcpStream {
    TcpStream::connect(stage.address).await.unwrap()
}

/// Everything until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8(bytes).unwrap()
}

fn code(answer: &str) -> Code {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    assert!(head.contains("content-type: application/problem+json"), "{answer}");
    let problem: Problem = serde_json::from_str(body).unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {} ", problem.status)), "{answer}");
    problem.code
}

#[tokio::test]
async fn a_head_that_trickles_in_is_given_up() {
    let stage = Stage::start_with(&[("HEAD_TIMEOUT_MS", "300")]).await;
    let mut stream = connect(&stage).await;
    stream.write_all(b"GET /v1/shows HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    assert_eq!(code(&rest(&mut stream).await), Code::RequestTimeout);
}

#[tokio::test]
async fn between_requests_a_connection_may_rest_longer() {
    let stage = Stage::start_with(&[("HEAD_TIMEOUT_MS", "1000"), ("HTTP_IDLE_TIMEOUT_MS", "60000")]).await;
    let mut stream = connect(&stage).await;
    let mut page = [0; 64 * 1024];
    stream.write_all(ASK).await.unwrap();
    assert!(stream.read(&mut page).await.unwrap() > 0);
    // A head on another connection begins later than this pause, and runs out of time during it.
    let mut other = connect(&stage).await;
    other.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(code(&rest(&mut other).await), Code::RequestTimeout);
    stream.write_all(ASK).await.unwrap();
    let length = stream.read(&mut page).await.unwrap();
    assert!(page[..length].starts_with(b"HTTP/1.1 200"), "the head's time had not begun");
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_is_closed_without_a_word() {
    let stage = Stage::start_with(&[("HTTP_IDLE_TIMEOUT_MS", "300")]).await;
    let mut stream = connect(&stage).await;
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_body_that_trickles_in_is_given_up() {
    let stage = Stage::start_with(&[("BODY_TIMEOUT_MS", "300")]).await;
    let token = stage.session().await;
    let mut stream = connect(&stage).await;
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nidempotency-key: k\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(code(&rest(&mut stream).await), Code::RequestTimeout);
}

#[tokio::test]
async fn what_is_no_http_is_refused_with_a_problem() {
    let stage = Stage::start().await;
    let nonsense: [&[u8]; 8] = [
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nbad header: \r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: a\x00b\r\n\r\n",
        b"POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ];
    for bytes in nonsense {
        let mut stream = connect(&stage).await;
        stream.write_all(bytes).await.unwrap();
        let answer = rest(&mut stream).await;
        assert_eq!(code(&answer), Code::MalformedRequest, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[tokio::test]
async fn whoever_still_sends_hears_the_refusal() {
    let stage = Stage::start().await;
    let mut stream = connect(&stage).await;
    let head =
        format!("GET / HTTP/1.1\r\nhost: x\r\nidempotency-key: {}\r\n\r\n", "k".repeat(2 * 1024 * 1024));
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(code(&rest(&mut stream).await), Code::HeadTooLarge);
    // A refusal of one request spoils nothing for those that were pipelined before it.
    let mut stream = connect(&stage).await;
    stream
        .write_all(b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nbad header\r\n\r\n")
        .await
        .unwrap();
    let answers = rest(&mut stream).await;
    assert!(answers.starts_with("HTTP/1.1 404 "), "{answers}");
    assert!(answers.contains("HTTP/1.1 400 "), "{answers}");
    assert!(answers.contains("malformed_request"), "{answers}");
}

#[tokio::test]
async fn an_answer_says_whether_it_is_the_last_one() {
    let stage = Stage::start().await;
    let post = |announced: usize, sent: &str| {
        format!(
            "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: {announced}\r\n\r\n{sent}"
        )
    };
    let mut page = [0; 64 * 1024];
    let mut stream = connect(&stage).await;
    // Refused before anybody reads the body, which is little and comes after its head: read away.
    for _ in 0..3 {
        stream.write_all(post(2, "").as_bytes()).await.unwrap();
        stream.write_all(b"{}").await.unwrap();
        let length = timeout(PATIENCE, stream.read(&mut page)).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&page[..length]);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
    // Much, or little that does not come: the answer is heard, and no request is sent after it.
    for (announced, sent) in [(1_000_000, "x".repeat(100_000)), (10, "{".to_owned())] {
        let mut stream = connect(&stage).await;
        stream.write_all(post(announced, &sent).as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn a_proxy_is_no_single_client() {
    let limits = [("HTTP_CONNECTIONS_MAX", "8"), ("HTTP_CONNECTIONS_PER_ADDRESS_MAX", "1")];
    let evicted = async |proxies: &[(&'static str, &str)]| {
        let stage = Stage::start_with(&[&limits[..], proxies].concat()).await;
        let mut first = connect(&stage).await;
        let mut second = connect(&stage).await;
        second.write_all(ASK).await.unwrap();
        assert_eq!(second.read_u8().await.unwrap(), b'H', "the newest connection is served");
        first.write_all(ASK).await.is_err() || first.read_u8().await.is_err()
    };
    assert!(evicted(&[]).await);
    assert!(!evicted(&[("TRUSTED_PROXIES", "127.0.0.0/8")]).await);
}

/// A gateway whose soft and hard limits of open files are low.
async fn gateway_with_few_descriptors(stage: &Stage) -> (Child, SocketAddr, SocketAddr) {
    let (http, admin) = (free_port(), free_port());
    let limited = "ulimit -S -n 64; ulimit -H -n 256; exec \"$0\"";
    let child = Command::new("sh")
        .args(["-c", limited, env!("CARGO_BIN_EXE_stampede-gateway")])
        .env_clear()
        .envs(stage.keys.iter().map(|(key, value)| (key, value)))
        .env("HTTP_LISTEN", format!("127.0.0.1:{http}"))
        .env("ADMIN_LISTEN", format!("127.0.0.1:{admin}"))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    eventually(PATIENCE, async || TcpStream::connect(at(http)).await.is_ok()).await;
    (child, at(http), at(admin))
}

#[tokio::test]
async fn silent_connections_stop_no_listener_however_few_descriptors_there_are() {
    let stage = Stage::start().await;
    let (child, http, admin) = gateway_with_few_descriptors(&stage).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id().unwrap())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(
        files.split_whitespace().collect::<Vec<_>>()[3..5],
        ["256", "256"],
        "the soft limit is raised"
    );
    for listener in [http, admin] {
        let mut silent = Vec::new();
        for _ in 0..300 {
            silent.push(TcpStream::connect(listener).await.unwrap());
        }
        for (address, path) in [(http, "/"), (admin, "/livez")] {
            let answer = stage.client.get(format!("http://{address}{path}")).timeout(PATIENCE).send().await;
            assert_eq!(answer.unwrap().status(), 200, "{address}{path}");
        }
    }
}

#[tokio::test]
async fn whoever_does_not_take_its_answers_is_let_go() {
    let stage = Stage::start_with(&[("WRITE_TIMEOUT_MS", "1000"), ("ADDRESS_REQUESTS_BURST", "10000")]).await;
    let mut stream = connect(&stage).await;
    let ask = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";
    // The answers are far more than the buffers between the two can hold.
    stream.write_all(&ask.repeat(2_000)).await.unwrap();
    let mut byte = [0; 1];
    assert_eq!(stream.read(&mut byte).await.unwrap(), 1, "it is being served");
    // One is that of the client that waited for the gateway.
    let only_that_is_open =
        async || stage.metrics().await.contains("\nstampede_http_connections{listener=\"main\"} 1\n");
    eventually(PATIENCE, only_that_is_open).await;
}
