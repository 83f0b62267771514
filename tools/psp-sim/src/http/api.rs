//! The API for the merchant: everything under a key, everything with the API key.

use axum::Router;
use axum::extract::{FromRequestParts, Request as HttpRequest, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::AUTHORIZATION;
use http::request::Parts;
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stampede_contracts::{Code, Currency, Money, Problem, header};
use stampede_postgres::Failure;
use stampede_service::extract::{Json, Path, Query};
use stampede_service::{Rotating, Secret};

use super::reply::{View, broken, performed, told};
use crate::domain::Request;
use crate::provider::Provider;

/// Characters in a key, a token, a reference or an id, at most.
const TEXT_MAX: usize = 200;
const PAGE_DEFAULT: u16 = 500;
const PAGE_MAX: u16 = 1_000;

/// The routes of the API.
pub fn router(provider: Provider, api_key: &Rotating<Secret>) -> Router {
    Router::new()
        .route("/v1/authorisations", post(authorise))
        .route("/v1/authorisations/{id}/capture", post(capture))
        .route("/v1/authorisations/{id}/void", post(void))
        .route("/v1/captures/{id}/refund", post(refund))
        .route("/v1/operations/{key}", get(look_up))
        .route("/v1/operations/{key}/cancel", post(cancel))
        .route("/v1/ledger", get(ledger))
        .route("/v1/info", get(info))
        .with_state(provider)
        // Only around the routes: whoever asks for one that does not exist learns nothing by it.
        .route_layer(from_fn_with_state(Guard::new(api_key), guard))
}

#[derive(Deserialize)]
struct NewAuthorisation {
    card_token: String,
    #[serde(deserialize_with = "stampede_contracts::whole::deserialize")]
    amount: i64,
    currency: Currency,
    reference: String,
}

async fn authorise(
    State(provider): State<Provider>,
    Key(key): Key,
    Json(new): Json<NewAuthorisation>,
) -> Result<Response, Problem> {
    let amount = Money::try_new(new.amount, new.currency).map_err(|error| invalid(error.to_string()))?;
    let (card_token, reference) = (text("card_token", new.card_token)?, text("reference", new.reference)?);
    let reply = provider.perform(&key, Request::Authorise { card_token, amount, reference }).await;
    Ok(performed(reply).await)
}

async fn capture(
    State(provider): State<Provider>,
    Key(key): Key,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let request = Request::Capture { authorisation: text("id", id)? };
    Ok(performed(provider.perform(&key, request).await).await)
}

async fn void(
    State(provider): State<Provider>,
    Key(key): Key,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let request = Request::Void { authorisation: text("id", id)? };
    Ok(performed(provider.perform(&key, request).await).await)
}

#[derive(Deserialize)]
struct NewRefund {
    #[serde(deserialize_with = "stampede_contracts::whole::deserialize")]
    amount: i64,
}

async fn refund(
    State(provider): State<Provider>,
    Key(key): Key,
    Path(id): Path<String>,
    Json(new): Json<NewRefund>,
) -> Result<Response, Problem> {
    if !(0..=Money::AMOUNT_MAX).contains(&new.amount) {
        return Err(invalid("amount must not be negative".to_owned()));
    }
    let request = Request::Refund { capture: text("id", id)?, amount: new.amount };
    Ok(performed(provider.perform(&key, request).await).await)
}

async fn look_up(State(provider): State<Provider>, Path(key): Path<String>) -> Result<Response, Problem> {
    Ok(told(provider.look_up(&text("key", key)?).await).await)
}

async fn cancel(State(provider): State<Provider>, Path(key): Path<String>) -> Result<Response, Problem> {
    Ok(told(provider.cancel(&text("key", key)?).await).await)
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    after: i64,
    limit: Option<u16>,
}

#[derive(Serialize)]
struct LedgerPage {
    operations: Vec<View>,
    /// Ask with this `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

async fn ledger(State(provider): State<Provider>, Query(page): Query<Page>) -> Result<Response, Problem> {
    let limit = usize::from(page.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX));
    // One more than asked for, to know whether there is a next page.
    let found = provider.ledger(page.after, i64::try_from(limit + 1).unwrap_or(i64::MAX)).await;
    let mut operations = match found {
        Ok(Some(operations)) => operations,
        Ok(None) => return Ok(broken()),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the ledger cannot be read");
            return Err(Problem::new(Failure::of(&error).code()));
        }
    };
    let has_more = operations.len() > limit;
    operations.truncate(limit);
    let next = operations.last().filter(|_| has_more).map(|last| last.seq);
    Ok(Json(LedgerPage { operations: operations.into_iter().map(View::from).collect(), next })
        .into_response())
}

async fn info(State(provider): State<Provider>) -> Response {
    let max_in_flight = u64::try_from(provider.max_in_flight().as_millis()).unwrap_or(u64::MAX);
    Json(json!({ "max_in_flight_ms": max_in_flight })).into_response()
}

fn text(name: &'static str, value: String) -> Result<String, InvalidText> {
    let is_fine = (1..=TEXT_MAX).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic());
    is_fine.then_some(value).ok_or(InvalidText(name))
}

/// The name of a text that is empty, too long, or has characters nobody sees.
struct InvalidText(&'static str);

impl From<InvalidText> for Problem {
    fn from(InvalidText(name): InvalidText) -> Self {
        invalid(format!("{name} must have 1 to {TEXT_MAX} visible characters"))
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(Code::ValidationFailed).detail(detail)
}

/// The `Idempotency-Key`, quoted or bare.
struct Key(String);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let value =
            parts.headers.get(header::IDEMPOTENCY_KEY).ok_or_else(|| Problem::new(Code::KeyMissing))?;
        let malformed = || Problem::new(Code::KeyMalformed);
        let value = value.to_str().map_err(|_| malformed())?;
        let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        text("key", bare.to_owned()).map(Self).map_err(|_| malformed())
    }
}

/// Knows the `Authorization` header it wants by its HMAC only: comparing takes as long for every wrong one.
#[derive(Clone)]
struct Guard {
    key: hmac::Key,
    wanted: Rotating<hmac::Tag>,
}

impl Guard {
    fn new(api_key: &Rotating<Secret>) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        let wanted = api_key.map(|it| hmac::sign(&key, format!("Bearer {}", it.expose()).as_bytes()));
        Self { key, wanted }
    }
}

async fn guard(State(guard): State<Guard>, request: HttpRequest, next: Next) -> Result<Response, Problem> {
    let shown = request.headers().get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    let fits = |wanted: &hmac::Tag| hmac::verify(&guard.key, shown, wanted.as_ref()).is_ok();
    if guard.wanted.iter().any(fits) {
        Ok(next.run(request).await)
    } else {
        Err(Problem::new(Code::Unauthenticated).detail("the API key is not valid"))
    }
}
