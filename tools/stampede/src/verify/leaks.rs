//! What is personal or secret stays where it belongs: looks for the values of this platform's own orders in every
//! stream, in the dead letters among them, and in every log.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_nats::Message;
use async_nats::jetstream;
use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use stampede_contracts::OrderId;
use uuid::Uuid;

use super::markers::{Kind, Marker, Markers};
use super::report::Found;
use super::snapshot::Snapshots;

/// Messages asked for at once.
const BATCH: usize = 500;
/// The server is on the other end of the line and reads from its disk.
const MESSAGE_LIMIT: Duration = Duration::from_secs(10);
/// A line that is longer is searched in pieces of this size, in bytes.
const LINE_MAX: u64 = 16 * 1024 * 1024;

const SEQUENCE: &str = "Nats-Sequence";
const SUBJECT: &str = "Nats-Subject";
const PENDING: &str = "Nats-Num-Pending";

/// The values that no stream and no log may know.
pub(super) async fn markers(now: &mut Snapshots) -> Result<Markers> {
    let mut rows = sqlx::query_as::<_, (Uuid, String, String, String, Option<String>)>(
        "SELECT order_id, buyer_name, buyer_email, order_secret, card_token FROM orders",
    )
    .fetch(&mut *now.orders);
    let mut markers = Markers::default();
    while let Some((order, name, email, secret, card)) = rows.try_next().await? {
        let order = OrderId::from_uuid(order);
        markers.add(Kind::Name, order, &name);
        markers.add(Kind::Email, order, &email);
        markers.add(Kind::Secret, order, &secret);
        if let Some(card) = card {
            markers.add(Kind::Card, order, &card);
        }
    }
    Ok(markers)
}

/// Looks through every stream, buckets included.
pub(super) async fn streams(found: &mut Found, client: &async_nats::Client, markers: &Markers) -> Result<()> {
    let context = jetstream::new(client.clone());
    let names: Vec<String> =
        context.stream_names().try_collect().await.context("the streams cannot be listed")?;
    found.checked(names.len(), "streams");
    for name in names {
        let mut from = Some(1);
        while let Some(sequence) = from {
            from = batch(found, client, &name, sequence, markers)
                .await
                .with_context(|| format!("stream {name} cannot be read"))?;
        }
    }
    Ok(())
}

/// Reads messages from a sequence on; gives the next one, if there is more. Reading messages directly (NATS ADR-31)
/// needs no consumer, which a work queue would not allow beside its own.
async fn batch(
    found: &mut Found,
    client: &async_nats::Client,
    stream: &str,
    from: u64,
    markers: &Markers,
) -> Result<Option<u64>> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await?;
    let request = json!({ "seq": from, "batch": BATCH }).to_string();
    client.publish_with_reply(format!("$JS.API.DIRECT.GET.{stream}"), inbox, request.into()).await?;
    let mut next = from;
    loop {
        let answer =
            tokio::time::timeout(MESSAGE_LIMIT, answers.next()).await.context("no answer in time")?;
        let answer = answer.context("the connection ended")?;
        match answer.status.map(|status| status.as_u16()) {
            // The end of a batch.
            Some(204) => return Ok((number(&answer, PENDING)? > 0 && next > from).then_some(next)),
            Some(404) => return Ok(None),
            Some(status) => bail!("the server answered {status} {}", answer.description.unwrap_or_default()),
            None => {
                next = number(&answer, SEQUENCE)? + 1;
                found.checked(1_u64, "messages");
                search_message(found, &answer, stream, markers);
            }
        }
    }
}

fn number(message: &Message, header: &str) -> Result<u64> {
    let value = message.headers.as_ref().and_then(|headers| headers.get(header));
    value.context("an answer without its number")?.as_str().parse().context("a number that is none")
}

fn search_message(found: &mut Found, message: &Message, stream: &str, markers: &Markers) {
    let headers = message.headers.as_ref();
    let header = |name| headers.and_then(|headers| headers.get(name)).map_or("?", |value| value.as_str());
    let place = || format!("stream {stream}, message {} ({})", header(SEQUENCE), header(SUBJECT));
    let values = headers.into_iter().flat_map(|headers| headers.iter()).flat_map(|(_, values)| values);
    for text in values.map(|value| value.as_str().as_bytes()).chain([&*message.payload]) {
        markers.find(text, |marker| found.broken(format!("{}: {}", place(), words(marker))));
    }
}

/// Looks through files, off the thread that everybody shares.
pub(super) async fn files(paths: Vec<PathBuf>, markers: Markers) -> Result<Found> {
    tokio::task::spawn_blocking(move || {
        let mut found = Found::default();
        found.checked(paths.len(), "log files");
        for path in &paths {
            file(&mut found, path, &markers).with_context(|| format!("cannot read {}", path.display()))?;
        }
        Ok(found)
    })
    .await?
}

fn file(found: &mut Found, path: &Path, markers: &Markers) -> Result<()> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if std::io::Read::take(&mut reader, LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let place = || format!("{}:{number}", path.display());
        markers.find(&line, |marker| found.broken(format!("{}: {}", place(), words(marker))));
    }
    Ok(())
}

/// Says what was found and not what it is: this goes to a terminal, and into the next log.
fn words(marker: Marker) -> String {
    match marker.order {
        Some(order) => format!("{} of order {order}", marker.kind.as_str()),
        None => marker.kind.as_str().to_owned(),
    }
}
