//! Streams, databases and mails.

use std::collections::BTreeMap;

use async_nats::jetstream;
use stampede::platform::Platform;
use stampede::provision::{Provisioner, Refill};
use stampede_contracts::topology::{BUCKETS, CONSUMERS, EVT_CATALOG, EVT_FACTS, EVT_INVENTORY, STREAMS};
use stampede_testkit::eventually;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::{SOON, infrastructure, said, stampede};

async fn jetstream(platform: &Platform) -> jetstream::Context {
    let run = platform.run_file().unwrap();
    let password = platform.secrets().unwrap().nats_password("operator").unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password("operator".to_owned(), password);
    jetstream::new(options.connect(run.urls.nats).await.unwrap())
}

/// Stream → its generation.
async fn generations(context: &jetstream::Context) -> BTreeMap<&'static str, String> {
    let mut generations = BTreeMap::new();
    for stream in STREAMS {
        let found = context.get_stream(stream.name).await.unwrap();
        generations.insert(stream.name, found.cached_info().config.metadata["generation"].clone());
    }
    generations
}

fn provisioner(platform: &Platform) -> Provisioner {
    let password = platform.secrets().unwrap().nats_password("operator").unwrap();
    Provisioner::new(platform.run_file().unwrap().urls.nats, "operator".to_owned(), password)
}

#[tokio::test]
async fn provisioning_again_changes_nothing_and_refilling_only_what_is_state() {
    let platform = infrastructure().await;
    let context = jetstream(&platform).await;
    let first = generations(&context).await;

    let done = provisioner(&platform).provision().await.unwrap();
    assert_eq!((done.made.len(), done.refilled.len()), (0, 0));
    assert_eq!(done.kept, STREAMS.len() + 2 * CONSUMERS.len() + BUCKETS.len());
    assert_eq!(generations(&context).await, first);

    let done = provisioner(&platform).run(Refill::Everything).await.unwrap();
    assert_eq!(done.refilled, [EVT_CATALOG, EVT_INVENTORY]);
    let second = generations(&context).await;
    assert_ne!(second[EVT_INVENTORY], first[EVT_INVENTORY]);
    assert_eq!(second[EVT_FACTS], first[EVT_FACTS]);

    context.delete_stream(EVT_FACTS).await.unwrap();
    let output = stampede(&["provision"], &platform).await;
    assert!(output.status.success() && said(&output).contains("new: EVT_FACTS"), "{}", said(&output));
    assert_ne!(generations(&context).await[EVT_FACTS], first[EVT_FACTS]);
}

#[tokio::test]
async fn a_nats_that_lost_everything_comes_back_with_new_generations() {
    let platform = infrastructure().await;
    let context = jetstream(&platform).await;
    context.publish("evt.orders.x.v1.y", "before".into()).await.unwrap().await.unwrap();
    let before = generations(&context).await;

    platform.restart("nats").await.unwrap();
    eventually(SOON, async || context.query_account().await.is_ok()).await;
    assert_eq!(generations(&context).await, before);
    assert_eq!(context.get_stream(EVT_FACTS).await.unwrap().cached_info().state.messages, 1);

    platform.lose_jetstream().await.unwrap();
    eventually(SOON, async || context.query_account().await.is_ok()).await;
    let after = generations(&context).await;
    assert!(before.iter().all(|(stream, generation)| after[stream] != *generation));
    assert_eq!(context.get_stream(EVT_FACTS).await.unwrap().cached_info().state.messages, 0);
}

#[tokio::test]
async fn a_mail_is_a_file_a_person_can_read() {
    let platform = infrastructure().await;
    let run = platform.run_file().unwrap();
    let address = run.urls.smtp.strip_prefix("smtp://").unwrap().to_owned();
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    let mut heard = String::new();
    stream.read_line(&mut heard).await.unwrap();
    let said = [
        "HELO test\r\n",
        "MAIL FROM:<tickets@stampede.example>\r\n",
        "RCPT TO:<ada@example.org>\r\n",
        "DATA\r\n",
        "Subject: Your ticket\r\n\r\nRow C, seat 12\r\n.\r\n",
        "QUIT\r\n",
    ];
    for line in said {
        stream.write_all(line.as_bytes()).await.unwrap();
        stream.read_line(&mut heard).await.unwrap();
    }
    let folder = platform.state.mail().join("new");
    let mails: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(mails.len(), 1, "{heard}");
    assert!(mails[0].contains("Subject: Your ticket") && mails[0].contains("Row C, seat 12"), "{}", mails[0]);
}
