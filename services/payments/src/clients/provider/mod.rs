//! The payment provider. Every call has a key and a deadline; whatever is not a definite answer is [`Unclear`].

mod unclear;
mod way;
mod wire;

use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, InvalidHeaderValue};
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url, redirect};
use serde::{Deserialize, Serialize};
use stampede_contracts::function::Keyed;
use stampede_contracts::{Money, OrderId, StepId, header};
use stampede_resilience::Destination;
use stampede_service::Secret;

use self::way::Call;
use self::wire::{NewAuthorisation, NewRefund, View};
use super::CardToken;
use crate::domain::Fate;

pub use self::unclear::Unclear;
pub use self::wire::{LedgerPage, LedgerRow};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read. A page of the ledger is the largest.
const ANSWER_MAX_BYTES: usize = 1024 * 1024;
/// Upper bounds of the latency histogram, in seconds.
const LATENCY_BOUNDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];

/// Where the provider is and what it wants to see.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// Base URL of its API.
    pub url: Url,
    /// Shown as bearer token.
    pub api_key: Secret,
}

/// A client that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The HTTP client.
    #[error("there is no HTTP client")]
    Client(#[from] reqwest::Error),
    /// The API key has characters that no header has.
    #[error("the API key cannot be sent in a header")]
    ApiKey(#[from] InvalidHeaderValue),
}

/// What the provider says to something that is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done, declined or refused.
    Settled(Fate),
    /// It did not like the request, and did not say what that means for the key.
    Rejected(StatusCode),
}

/// What the provider knows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookUp {
    /// This became of it.
    Found(Fate),
    /// Nothing. It proves nothing: what was sent before may still be on its way.
    NotFound,
}

/// The client. A handle: clones share its connections.
#[derive(Debug, Clone)]
pub struct Provider {
    client: Client,
    base: String,
    destination: Destination<Keyed>,
    latency: Histogram<f64>,
}

impl Provider {
    /// A client with a pool of connections, for the destination that its policy describes.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn try_new(settings: &ProviderSettings, destination: Destination<Keyed>) -> Result<Self, BuildError> {
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", settings.api_key.expose()))?;
        authorization.set_sensitive(true);
        let client = Client::builder()
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, authorization)]))
            .connect_timeout(CONNECT_TIMEOUT)
            // Money goes where we were told, and nowhere else.
            .redirect(redirect::Policy::none())
            .build()?;
        let latency = stampede_telemetry::meter()
            .f64_histogram("stampede.payments.provider.duration")
            .with_description(
                "Time from a call of the provider to its answer, or to the end of our patience.",
            )
            .with_unit("s")
            .with_boundaries(LATENCY_BOUNDS.to_vec())
            .build();
        let base = settings.url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { client, base, destination, latency })
    }

    /// Reserves an amount.
    ///
    /// # Errors
    /// [`Unclear`]: it may have been done. The same goes for all that change something.
    pub async fn authorise(
        &self,
        key: StepId,
        card: &CardToken,
        amount: Money,
        order: OrderId,
    ) -> Result<Answer, Unclear> {
        let body = NewAuthorisation {
            card_token: card.expose(),
            amount: amount.amount(),
            currency: amount.currency(),
            reference: order,
        };
        self.perform("authorise", key, "/v1/authorisations", &body).await
    }

    /// Takes what was reserved.
    ///
    /// # Errors
    /// See [`authorise`](Self::authorise).
    pub async fn capture(&self, key: StepId, authorisation: &str) -> Result<Answer, Unclear> {
        self.perform("capture", key, &format!("/v1/authorisations/{authorisation}/capture"), &()).await
    }

    /// Gives back what was reserved.
    ///
    /// # Errors
    /// See [`authorise`](Self::authorise).
    pub async fn void(&self, key: StepId, authorisation: &str) -> Result<Answer, Unclear> {
        self.perform("void", key, &format!("/v1/authorisations/{authorisation}/void"), &()).await
    }

    /// Gives back what was taken.
    ///
    /// # Errors
    /// See [`authorise`](Self::authorise).
    pub async fn refund(&self, key: StepId, capture: &str, amount: Money) -> Result<Answer, Unclear> {
        let body = NewRefund { amount: amount.amount() };
        self.perform("refund", key, &format!("/v1/captures/{capture}/refund"), &body).await
    }

    /// What is known of a key.
    ///
    /// # Errors
    /// [`Unclear`].
    pub async fn look_up(&self, key: StepId) -> Result<LookUp, Unclear> {
        let request = self.client.request(Method::GET, self.url(&format!("/v1/operations/{key}")));
        let (status, body) = self.send("look_up", request).await?;
        if !matches!(status, StatusCode::OK | StatusCode::NOT_FOUND) {
            return Err(Unclear::Status(status));
        }
        let view: View = read("look_up", &body)?;
        // A 404 without this word is some proxy's, or a wrong address.
        if status == StatusCode::NOT_FOUND && view.status == "unknown" {
            return Ok(LookUp::NotFound);
        }
        view.fate().map(LookUp::Found).ok_or(Unclear::Malformed("look_up"))
    }

    /// Sees to it that nothing happens under a key from now on, or says what has happened.
    ///
    /// # Errors
    /// [`Unclear`].
    pub async fn cancel(&self, key: StepId) -> Result<Fate, Unclear> {
        let request = self.client.request(Method::POST, self.url(&format!("/v1/operations/{key}/cancel")));
        match self.send("cancel", request).await? {
            (StatusCode::OK, body) => {
                read::<View>("cancel", &body)?.fate().ok_or(Unclear::Malformed("cancel"))
            }
            (other, _) => Err(Unclear::Status(other)),
        }
    }

    /// The provider's ledger after a place in it.
    ///
    /// # Errors
    /// [`Unclear`].
    pub async fn ledger(&self, after: i64) -> Result<LedgerPage, Unclear> {
        let request = self.client.request(Method::GET, self.url("/v1/ledger")).query(&[("after", after)]);
        match self.send("ledger", request).await? {
            (StatusCode::OK, body) => read("ledger", &body),
            (other, _) => Err(Unclear::Status(other)),
        }
    }

    async fn perform<B: Serialize + Sync>(
        &self,
        name: &'static str,
        key: StepId,
        path: &str,
        body: &B,
    ) -> Result<Answer, Unclear> {
        let request = self.client.request(Method::POST, self.url(path));
        let request = request.header(header::IDEMPOTENCY_KEY, format!("\"{key}\"")).json(body);
        let (status, body) = self.send(name, request).await?;
        match status {
            StatusCode::CREATED | StatusCode::PAYMENT_REQUIRED | StatusCode::CONFLICT => {
                let fate = read::<View>(name, &body)?.fate().ok_or(Unclear::Malformed(name))?;
                Ok(Answer::Settled(fate))
            }
            // Ours to repeat, says the provider.
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                Err(Unclear::Status(status))
            }
            other if other.is_client_error() => Ok(Answer::Rejected(other)),
            other => Err(Unclear::Status(other)),
        }
    }

    async fn send(
        &self,
        name: &'static str,
        request: RequestBuilder,
    ) -> Result<(StatusCode, Vec<u8>), Unclear> {
        let started = Instant::now();
        let result = way::exchange(&self.destination, Call { name, request }).await;
        let word = match &result {
            Ok((status, _)) => status.as_str().to_owned(),
            Err(unclear) => unclear.as_str().to_owned(),
        };
        let labels = [KeyValue::new("call", name), KeyValue::new("result", word)];
        self.latency.record(started.elapsed().as_secs_f64(), &labels);
        result
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

fn read<'de, T: Deserialize<'de>>(name: &'static str, body: &'de [u8]) -> Result<T, Unclear> {
    serde_json::from_slice(body).map_err(|_unreadable| Unclear::Malformed(name))
}
