//! A mail that could not be delivered: an operator sees it, mends what is wrong, and sends it again.

use std::process::Output;

use reqwest::Method;
use stampede::client::With;
use stampede_contracts::api;
use stampede_testkit::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::stage::{GOOD_CARD, PATIENCE, Stage};

/// A door in front of the platform's mail sink. While it is shut, whoever comes is refused for good.
struct Door {
    port: u16,
    /// Where the sink listens, once the door is open.
    open: watch::Sender<Option<String>>,
    _letting_in: JoinSet<()>,
}

impl Door {
    async fn shut() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, state) = watch::channel(None);
        let mut letting_in = JoinSet::new();
        letting_in.spawn(async move {
            let mut visits = JoinSet::new();
            loop {
                let (visitor, _) = listener.accept().await.unwrap();
                visits.spawn(let_in(visitor, state.borrow().clone()));
            }
        });
        Self { port, open, _letting_in: letting_in }
    }
}

async fn let_in(mut visitor: TcpStream, sink: Option<String>) {
    // Who hangs up early is no concern of the test.
    if let Some(sink) = sink {
        let mut sink = TcpStream::connect(sink).await.unwrap();
        let _ = copy_bidirectional(&mut visitor, &mut sink).await;
    } else {
        let _ = visitor.write_all(b"554 5.3.2 no mail today\r\n").await;
        let _ = visitor.read_to_end(&mut Vec::new()).await;
    }
}

async fn dead_letters(stage: &Stage, args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_stampede"));
    command.arg("dead-letters").args(args).arg("--state").arg(stage.platform.state.root());
    command.output().await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// What the timeline of an order says last about its mail.
async fn mail(stage: &Stage, order: &api::Order, token: &str) -> (String, String) {
    let timeline = stage.read(order.order_id, token).await.timeline;
    let last = timeline.into_iter().rfind(|entry| entry.step == "notify").unwrap();
    (last.state, last.detail.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_was_given_up_is_listed_sent_again_and_arrives() {
    let door = Door::shut().await;
    let stage = Stage::start(&[&format!("notify.SMTP_URL=smtp://127.0.0.1:{}", door.port)]).await;
    let output = dead_letters(&stage, &["list"]).await;
    assert!(output.status.success() && said(&output).contains("no dead letters"), "{}", said(&output));

    let (token, show) = (stage.token().await, stage.show("club").await);
    let order: api::Order = stage.order(&show, &token, GOOD_CARD).await.json().unwrap();
    eventually(PATIENCE, async || mail(&stage, &order, &token).await.0 == "refused").await;

    let output = dead_letters(&stage, &["list"]).await;
    assert!(output.status.success());
    let list = said(&output);
    let line = list.lines().find(|line| line.starts_with("1 ")).unwrap();
    for word in ["notify", "cmd.notify.tickets", "the mail server says 554 5.3.2"] {
        assert!(line.contains(word), "{word}: {list}");
    }
    let operator = stage.platform.secrets().unwrap().operator_token().unwrap();
    let ask = async || {
        let (path, with) = ("/v1/ops/dead-letters", With::token(&operator));
        let page: api::Page<api::DeadLetter> =
            stage.client.send(Method::GET, path, with, None).await.unwrap().json().unwrap();
        page.items
    };
    let letters = ask().await;
    assert_eq!((letters.len(), letters[0].sequence), (1, 1));
    assert_eq!(letters[0].origin_subject, "cmd.notify.tickets");

    // A slip sends nothing.
    let output = dead_letters(&stage, &["replay", "1", "99"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("there is no dead letter 99"), "{}", said(&output));
    assert_eq!(ask().await, letters);
    let output = dead_letters(&stage, &["replay", "--all", "--consumer", "payments"]).await;
    assert!(said(&output).contains("no dead letters of payments"), "{}", said(&output));
    assert_eq!(ask().await, letters);

    let sink = stage.platform.run_file().unwrap().urls.smtp;
    door.open.send_replace(Some(sink.trim_start_matches("smtp://").to_owned()));
    // One that is named twice is sent once.
    let output = dead_letters(&stage, &["replay", "1", "1"]).await;
    assert!(output.status.success() && said(&output).contains("1 sent again"), "{}", said(&output));
    assert_eq!(ask().await, []);
    eventually(PATIENCE, async || stage.mail_with(&order)).await;
    eventually(PATIENCE, async || mail(&stage, &order, &token).await.0 == "done").await;
    let (_, detail) = mail(&stage, &order, &token).await;
    assert!(detail.contains("given up") && detail.contains("sent it again"), "{detail}");
    stage.platform.stop().await.unwrap();
}
