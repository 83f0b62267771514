//! RFC 9110 and RFC 9112 on raw sockets: what a server has to refuse, and how it has to respond.

use std::fmt::Write as _;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{PATIENCE, Stage};

/// Everything that is answered to these bytes until the connection ends.
async fn answer_to(stage: &Stage, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.unwrap_or_else(|_| panic!("not closed: {}", String::from_utf8_lossy(bytes))).unwrap();
    String::from_utf8(answer).unwrap()
}

/// A request that ends the connection, with these lines in its head.
fn closing(line: &str, fields: &str) -> String {
    format!("{line}\r\nhost: x\r\nconnection: close\r\n{fields}\r\n")
}

fn answers_of(text: &str) -> usize {
    text.matches("HTTP/1.1 ").count() + text.matches("HTTP/1.0 ").count()
}

#[tokio::test]
async fn heads_that_rfc_9112_has_a_server_refuse() {
    let stage = Stage::start().await;
    // Far above the limit, which is looked at between two reads.
    let long = "a".repeat(400_000);
    let many = (0..100).fold(String::new(), |mut many, n| {
        let _written = write!(many, "x-{n}: 1\r\n");
        many
    });
    let ask = |line: &str, fields: &str| closing(line, fields);
    let get = "GET / HTTP/1.1";
    let refused: Vec<(&str, String, u16)> = vec![
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("two hosts", ask(get, "host: x\r\n"), 400),
        ("two hosts in HTTP/1.0", ask("GET / HTTP/1.0", "host: y\r\n"), 400),
        ("a host with a path", "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n".to_owned(), 400),
        ("a host with a blank", "GET / HTTP/1.1\r\nhost: a b\r\n\r\n".to_owned(), 400),
        ("a host with a user", "GET / HTTP/1.1\r\nhost: me@x\r\n\r\n".to_owned(), 400),
        ("a host without a port", "GET / HTTP/1.1\r\nhost: x:port\r\n\r\n".to_owned(), 400),
        ("an address without a slash", ask("GET nothing HTTP/1.1", ""), 400),
        ("the form of CONNECT", ask("GET x:80 HTTP/1.1", ""), 400),
        ("another scheme", ask("GET ftp://x/ HTTP/1.1", ""), 400),
        ("an asterisk", ask("GET * HTTP/1.1", ""), 400),
        ("blanks in the address", ask("GET /a b HTTP/1.1", ""), 400),
        ("CONNECT", ask("CONNECT x:443 HTTP/1.1", ""), 501),
        ("an unknown method", ask("BREW / HTTP/1.1", ""), 501),
        ("a method in small letters", ask("get / HTTP/1.1", ""), 501),
        ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
        ("no version", "GET /\r\n\r\n".to_owned(), 400),
        ("a folded line", ask(get, "x: a\r\n b\r\n"), 400),
        ("a blank before the colon", ask(get, "x : a\r\n"), 400),
        ("a blank before the first field", "GET / HTTP/1.1\r\n host: x\r\n\r\n".to_owned(), 400),
        ("a bare CR", ask(get, "x: a\rb\r\n"), 400),
        ("a NUL", ask(get, "x: a\0b\r\n"), 400),
        ("a field without a name", ask(get, ": a\r\n"), 400),
        ("an unknown coding", ask(get, "transfer-encoding: gzip, chunked\r\n"), 501),
        ("the same in two lines", ask(get, "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n"), 501),
        ("chunked twice", ask(get, "transfer-encoding: chunked, chunked\r\n"), 400),
        ("chunked not last", ask(get, "transfer-encoding: chunked, gzip\r\n"), 400),
        ("a coding alone", ask(get, "transfer-encoding: identity\r\n"), 400),
        ("a coding in HTTP/1.0", ask("GET / HTTP/1.0", "transfer-encoding: chunked\r\n"), 400),
        ("two lengths", ask(get, "content-length: 1\r\ncontent-length: 2\r\n"), 400),
        ("a list of lengths", ask(get, "content-length: 1, 2\r\n"), 400),
        ("a length with a sign", ask(get, "content-length: +1\r\n"), 400),
        ("a length in another base", ask(get, "content-length: 0x1\r\n"), 400),
        ("no length", ask(get, "content-length: \r\n"), 400),
        ("too long a length", ask(get, "content-length: 99999999999999999999\r\n"), 400),
        ("too long an address", ask(&format!("GET /{long} HTTP/1.1"), ""), 414),
        ("too long a field", ask(get, &format!("x: {long}\r\n")), 431),
        ("too many fields", ask(get, &many), 431),
    ];
    for (what, request, status) in refused {
        let answer = answer_to(&stage, request.as_bytes()).await;
        assert!(answer.lines().next().unwrap().contains(&format!(" {status} ")), "{what}: {answer}");
        assert_eq!(answers_of(&answer), 1, "{what}: {answer}");
        let head = answer.split_once("\r\n\r\n").unwrap().0;
        for line in ["connection: close", "content-type: application/problem+json", "cache-control: no-store"]
        {
            assert!(head.contains(line), "{what}: {line} in {answer}");
        }
    }
}

#[tokio::test]
async fn heads_that_rfc_9112_has_a_server_take() {
    let stage = Stage::start().await;
    let taken: Vec<(&str, String, u16)> = vec![
        ("an empty host", "GET / HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n".to_owned(), 200),
        (
            "a host with a port",
            "GET / HTTP/1.1\r\nhost: [::1]:80\r\nconnection: close\r\n\r\n".to_owned(),
            200,
        ),
        ("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n".to_owned(), 200),
        ("the absolute form", closing("GET http://elsewhere/ HTTP/1.1", ""), 200),
        ("an empty line before", format!("\r\n{}", closing("GET / HTTP/1.1", "")), 200),
        ("lines that end with LF", closing("GET / HTTP/1.1", "").replace("\r\n", "\n"), 200),
        (
            "the same length twice",
            closing("GET / HTTP/1.1", "content-length: 0\r\ncontent-length: 0\r\n"),
            200,
        ),
        ("an expectation in HTTP/1.0", "GET / HTTP/1.0\r\nexpect: 100-continue\r\n\r\n".to_owned(), 200),
        ("a range of what has none", closing("GET /openapi.json HTTP/1.1", "range: bytes=0-1\r\n"), 200),
        ("the options of the server", closing("OPTIONS * HTTP/1.1", ""), 204),
        ("the options of a resource", closing("OPTIONS /v1/shows HTTP/1.1", ""), 204),
        ("a method of another resource", closing("PUT /v1/shows HTTP/1.1", ""), 405),
        ("TRACE", closing("TRACE / HTTP/1.1", ""), 405),
    ];
    for (what, request, status) in taken {
        let answer = answer_to(&stage, request.as_bytes()).await;
        let (head, _body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{what}: {answer}"));
        assert!(head.contains(&format!(" {status} ")) && answers_of(&answer) == 1, "{what}: {answer}");
        assert_eq!(head.contains("\r\nallow: "), matches!(status, 204 | 405), "{what}: {head}");
        assert!(!head.contains("transfer-encoding") && !head.contains("content-range"), "{what}: {head}");
        assert_eq!(head.contains("content-length"), status != 204, "{what}: {head}");
    }
}

#[tokio::test]
async fn no_second_request_is_hidden_in_a_first_one() {
    let stage = Stage::start().await;
    let token = stage.session().await;
    let post = |fields: &str, body: &str| {
        format!(
            "POST /v1/shows/shw_0192f0c1a2b37c4d8e5f60718293a4b5/holds HTTP/1.1\r\nhost: x\r\nidempotency-key: k\r\n\
             authorization: Bearer {token}\r\ncontent-type: application/json\r\n{fields}\r\n{body}"
        )
    };
    let hidden = "GET /hidden HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    let both = format!("content-length: 5\r\n{chunked}");
    let both_the_other_way = format!("{chunked}content-length: 5\r\n");
    let cases = [
        ("a length beside chunks", both.as_str(), format!("0\r\n\r\n{hidden}")),
        ("chunks beside a length", &both_the_other_way, format!("0\r\n\r\n{hidden}")),
        ("no size", chunked, format!("\r\n{hidden}")),
        ("a size that is none", chunked, format!("xyz\r\n{hidden}")),
        ("a size below zero", chunked, format!("-1\r\n{hidden}")),
        ("a size with a prefix", chunked, format!("0x2\r\n{{}}\r\n0\r\n\r\n{hidden}")),
        ("a size above everything", chunked, format!("ffffffffffffffffff\r\n{hidden}")),
        ("a chunk that is longer than its size", chunked, format!("1\r\n{{}}\r\n0\r\n\r\n{hidden}")),
        ("a size that ends with LF", chunked, format!("2;x\n{{}}\r\n0\r\n\r\n{hidden}")),
    ];
    for (what, fields, body) in cases {
        let answer = answer_to(&stage, post(fields, &body).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
        assert_eq!(answers_of(&answer), 1, "{what}: {answer}");
        assert!(answer.contains("connection: close"), "{what}: {answer}");
    }
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_or_the_refusal() {
    let stage = Stage::start().await;
    let token = stage.session().await;
    let post = |token: &str, length: usize| {
        format!(
            "POST /v1/shows/shw_0192f0c1a2b37c4d8e5f60718293a4b5/holds HTTP/1.1\r\nhost: x\r\nidempotency-key: k\r\n\
             authorization: Bearer {token}\r\ncontent-type: application/json\r\nconnection: close\r\n\
             expect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    stream.write_all(post(&token, 2).as_bytes()).await.unwrap();
    let mut goes_on = [0; 25];
    timeout(PATIENCE, stream.read_exact(&mut goes_on)).await.unwrap().unwrap();
    assert_eq!(&goes_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{}").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 422 "), "{answer}");
    // A refusal comes before the body, not after it.
    for (token, length, status) in [("forged", 2, "401"), (&token, 1_000_000, "413")] {
        let answer = answer_to(&stage, post(token, length).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn head_is_answered_like_get_without_the_content() {
    let stage = Stage::start().await;
    let fits = |path: &'static str| {
        get(move || async move { ([("etag", "\"1\"")], format!("{{\"at\":\"{path}\"}}")) })
    };
    let events = get(async || ([("content-type", "text/event-stream")], "data: x\n\n"));
    let catalog = Router::new()
        .route("/v1/shows", fits("shows"))
        .fallback(async || (StatusCode::INTERNAL_SERVER_ERROR, "not a problem").into_response());
    let lobby = Router::new().route("/v1/lobby/{place}/events", events).fallback_service(fits("lobby"));
    stage.play("catalog", catalog).await;
    stage.play("lobby", lobby).await;
    stage.play("orders", Router::new().route("/v1/orders", fits("orders"))).await;
    let token = stage.session().await;
    let lobby_ticket = "/v1/lobby/lby_0192f0c1a2b37c4d8e5f60718293a4b5";
    let events = format!("{lobby_ticket}/events");
    let show = "/v1/shows/shw_0192f0c1a2b37c4d8e5f60718293a4b5";
    for path in [
        "/",
        "/docs/",
        "/openapi.json",
        "/problems/seats_taken",
        "/problems/none",
        "/nothing",
        "/v1/test-cards",
        "/v1/shows",
        show,
        "/v1/shows/none",
        "/v1/orders",
        "/v1/ticket-keys",
        lobby_ticket,
        &events,
        "/v1/ops/dead-letters",
    ] {
        let ask = |method| stage.request(method, path).bearer_auth(&token).send();
        let (got, headed) = (ask(Method::GET).await.unwrap(), ask(Method::HEAD).await.unwrap());
        assert_eq!(got.status(), headed.status(), "{path}");
        for field in ["content-type", "content-length", "etag", "cache-control", "allow"] {
            let (got, headed) = (got.headers().get(field), headed.headers().get(field));
            // What depends on the content may be left out (RFC 9110, 9.3.2); it may not be wrong.
            assert!(
                got == headed || (field == "content-length" && headed.is_none()),
                "{path} {field}: {got:?} {headed:?}"
            );
        }
        assert!(path != "/v1/shows" || headed.headers().contains_key("content-length"), "it is known");
        assert_eq!(headed.bytes().await.unwrap(), "", "{path}");
    }
}
