//! Telling the merchant: signed, at least once, late, doubled and out of order where the knobs say so.

use std::convert::Infallible;
use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::StreamExt;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use rand::RngExt;
use reqwest::{Client, Url, redirect};
use ring::hmac;
use serde::Serialize;
use stampede_contracts::Timestamp;
use stampede_retry::Backoff;
use stampede_service::{Rotating, Secret};
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::domain::{Kind, Operation, Status};
use crate::knobs::Panel;
use crate::store::{DueWebhook, Store};

const POLL: Duration = Duration::from_millis(100);
const BATCH: i64 = 256;
/// Sent at the same time.
const CONCURRENCY: usize = 16;
const ATTEMPTS_MAX: i32 = 12;
const SEND_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longer than a whole batch of time-outs takes.
const LEASE: time::Duration = time::Duration::seconds(120);
/// How much a shuffled webhook is overtaken by, at most.
const SHUFFLE_MAX_MS: u64 = 2_000;

/// Where the merchant listens.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its URL.
    pub url: Url,
    /// What signs. While it is replaced there is a signature by each; the merchant verifies the one whose key it has.
    pub secret: Rotating<Secret>,
}

/// Sends what is due.
#[derive(Debug, Clone)]
pub struct Sender {
    store: Store,
    panel: Panel,
    client: Client,
    target: Target,
    backoff: Backoff,
    sent: Counter<u64>,
}

/// A sender that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP client.
    #[error("there is no HTTP client")]
    Client(#[from] reqwest::Error),
    /// The constants of this file.
    #[error("the back-off is not valid")]
    Backoff(#[from] stampede_retry::InvalidBackoff),
}

/// The body.
#[derive(Serialize)]
struct Body<'a> {
    event_id: &'a str,
    #[serde(rename = "type")]
    kind: String,
    key: &'a str,
    id: Option<&'a str>,
    at: Timestamp,
}

/// What became of one sending.
enum Sent {
    Delivered(String),
    Later(String, Duration),
    GivenUp(String),
}

impl Sender {
    /// A sender to `target`.
    ///
    /// # Errors
    /// [`Error`] when there is no HTTP client.
    pub fn try_new(store: Store, panel: Panel, target: Target) -> Result<Self, Error> {
        let client = Client::builder()
            .timeout(SEND_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .build()?;
        let backoff = Backoff::try_new(Duration::from_millis(500), Duration::from_secs(60))?;
        let sent = stampede_telemetry::meter()
            .u64_counter("stampede.psp.webhooks")
            .with_description("Webhooks by what became of sending them.")
            .build();
        Ok(Self { store, panel, client, target, backoff, sent })
    }

    /// Sends until `shutdown`. What is not delivered by then is sent after the next start.
    ///
    /// # Errors
    /// None: an error of the database is logged, and tried again.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Infallible> {
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = poll.tick() => {}
            }
            if self.panel.read().down {
                continue;
            }
            if let Err(error) = self.round().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "webhooks wait for the database");
            }
        }
    }

    async fn round(&self) -> Result<(), sqlx::Error> {
        let due = self.store.due_webhooks(BATCH, LEASE).await?;
        if due.is_empty() {
            return Ok(());
        }
        let results: Vec<Sent> = futures::stream::iter(due)
            .map(|due| self.send(due))
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let (mut over, mut later, mut later_at) = (Vec::new(), Vec::new(), Vec::new());
        let now = OffsetDateTime::now_utc();
        for result in results {
            match result {
                Sent::Delivered(event_id) | Sent::GivenUp(event_id) => over.push(event_id),
                Sent::Later(event_id, delay) => {
                    later.push(event_id);
                    later_at.push(now + delay);
                }
            }
        }
        if !later.is_empty() {
            self.store.postpone_webhooks(&later, &later_at).await?;
        }
        self.store.forget_webhooks(&over).await
    }

    async fn send(&self, due: DueWebhook) -> Sent {
        let knobs = self.panel.read();
        let attempt = u32::try_from(due.attempts).unwrap_or(u32::MAX);
        let (is_overtaken, is_doubled, shuffle, delay) = {
            let mut rng = rand::rng();
            (
                attempt == 1 && rng.random_bool(knobs.webhook_shuffle_rate),
                rng.random_bool(knobs.webhook_duplicate_rate),
                Duration::from_millis(rng.random_range(0..=SHUFFLE_MAX_MS)),
                self.backoff.delay(attempt, &mut rng),
            )
        };
        if is_overtaken {
            return Sent::Later(due.event_id, shuffle);
        }
        let mut result = self.post(&due).await;
        if is_doubled {
            result = self.post(&due).await;
        }
        let (word, sent) = match result {
            Ok(()) => ("delivered", Sent::Delivered(due.event_id)),
            Err(error) if due.attempts >= ATTEMPTS_MAX => {
                tracing::error!(event_id = due.event_id, %error, "a webhook was given up");
                ("given_up", Sent::GivenUp(due.event_id))
            }
            Err(error) => {
                tracing::debug!(event_id = due.event_id, %error, ?delay, "a webhook is sent again later");
                ("failed", Sent::Later(due.event_id, delay))
            }
        };
        self.sent.add(1, &[KeyValue::new("result", word)]);
        sent
    }

    async fn post(&self, due: &DueWebhook) -> Result<(), reqwest::Error> {
        let operation = &due.operation;
        let body = Body {
            event_id: &due.event_id,
            kind: event_type(operation),
            key: &operation.key,
            id: operation.id.as_deref(),
            at: operation.at,
        };
        let body = serde_json::to_string(&body).unwrap_or_default();
        let timestamp = OffsetDateTime::now_utc().unix_timestamp();
        let signature = |secret: &Secret| sign(secret.expose(), &due.event_id, timestamp, &body);
        let signatures: Vec<String> = self.target.secret.iter().map(signature).collect();
        let request = self.client.post(self.target.url.clone());
        let request = request
            .header("webhook-id", &due.event_id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures.join(" "))
            .header("content-type", "application/json");
        request.body(body).send().await?.error_for_status().map(|_answer| ())
    }
}

/// The signature of the standard-webhooks scheme: HMAC-SHA256 of `id.timestamp.body`, in base64, after `v1,`.
/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
pub fn sign(secret: &str, id: &str, unix_seconds: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{id}.{unix_seconds}.{body}").as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(tag))
}

fn event_type(operation: &Operation) -> String {
    let noun = match operation.kind {
        Kind::Authorise => "authorisation",
        Kind::Capture => "capture",
        Kind::Void => "void",
        Kind::Refund => "refund",
        Kind::Cancel => "key",
    };
    let verb = match operation.status {
        Status::Declined => "declined",
        Status::Refused => "refused",
        Status::Cancelled => "cancelled",
        Status::Authorised | Status::Captured | Status::Voided | Status::Refunded => "succeeded",
    };
    format!("{noun}.{verb}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_covers_id_time_and_body() {
        // Computed with `printf evt_1.1700000000.{} | openssl dgst -sha256 -hmac secret -binary | base64`.
        let signature = sign("secret", "evt_1", 1_700_000_000, "{}");
        assert_eq!(signature, "v1,gcuLUJYfD9JQ2UlZMDEyUnqjiYF/KVJjsn3HLULsCj4=");
        assert_ne!(sign("secret", "evt_2", 1_700_000_000, "{}"), signature);
        assert_ne!(sign("secret", "evt_1", 1_700_000_001, "{}"), signature);
        assert_ne!(sign("other", "evt_1", 1_700_000_000, "{}"), signature);
    }
}
