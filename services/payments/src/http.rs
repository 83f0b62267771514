//! The listener for the provider's webhooks. They inform: a row is woken, and the provider asked. They never decide.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use stampede_contracts::{Code, Problem, StepId, Timestamp};
use stampede_deadline::InvalidLimits;
use stampede_postgres::Failure;
use stampede_service::{HttpLimits, stack};

use crate::domain::{Signed, Verifier};
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::store::{Store, Wake};

const BODY_MAX_BYTES: usize = 16 * 1024;
/// Characters of an event id, at most.
const ID_MAX: usize = 100;

/// What a webhook needs.
#[derive(Debug, Clone)]
pub struct Webhooks {
    /// Where the operations are.
    pub store: Store,
    /// What looks for rows that are due.
    pub queue: Queue,
    /// Knows the provider's signature.
    pub verifier: Verifier,
    /// What is counted.
    pub metrics: Metrics,
}

/// The one route: `POST /webhooks`.
///
/// # Errors
/// When the limits of this file are not valid.
pub fn router(webhooks: Webhooks) -> Result<Router, InvalidLimits> {
    let router = Router::new().route("/webhooks", post(receive)).with_state(webhooks);
    // Strangers reach this door too: their traces are only linked.
    Ok(stack(router, HttpLimits::public().body_max_bytes(BODY_MAX_BYTES)))
}

/// The part of a webhook's body that is used. What it says of the outcome is not: the provider is asked.
#[derive(Deserialize)]
struct Notice {
    key: String,
}

async fn receive(
    State(webhooks): State<Webhooks>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let result = webhooks.handle(&headers, &body).await;
    webhooks.metrics.webhook(match &result {
        Ok(Wake::Woken) => "woken",
        Ok(Wake::Duplicate) => "duplicate",
        Ok(Wake::Settled) => "settled",
        Ok(Wake::Unknown) => "unknown",
        Err(refusal) => refusal.as_str(),
    });
    match result {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(Refusal::Untrusted) => Err(Problem::new(Code::Unauthenticated).detail("not signed, or not now")),
        Err(Refusal::Malformed) => Err(Problem::new(Code::MalformedRequest)),
        Err(Refusal::Database(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a webhook has to come again");
            Err(Problem::new(Failure::of(&error).code()))
        }
    }
}

/// Why a webhook did nothing.
enum Refusal {
    Untrusted,
    Malformed,
    Database(sqlx::Error),
}

impl Refusal {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Malformed => "malformed",
            Self::Database(_) => "database",
        }
    }
}

impl Webhooks {
    async fn handle(&self, headers: &HeaderMap, body: &Bytes) -> Result<Wake, Refusal> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let signed = Signed {
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            signatures: header("webhook-signature"),
        };
        let now = Timestamp::now().unix_millis() / 1_000;
        if let Err(reason) = self.verifier.verify(signed, body, now) {
            tracing::warn!(%reason, "a webhook is not believed");
            return Err(Refusal::Untrusted);
        }
        if signed.id.is_empty() || signed.id.len() > ID_MAX {
            return Err(Refusal::Malformed);
        }
        let notice: Notice = serde_json::from_slice(body).map_err(|_unreadable| Refusal::Malformed)?;
        // A key that is no step was never ours; the provider may have other merchants' mistakes to tell.
        let Ok(step) = notice.key.parse::<StepId>() else { return Ok(Wake::Unknown) };
        let wake = self.store.wake(signed.id, step).await.map_err(Refusal::Database)?;
        if wake == Wake::Woken {
            self.queue.wake();
        }
        Ok(wake)
    }
}
