//! What handlers take from a request. Each says no with a problem.

use std::convert::Infallible;
use std::fmt::Display;
use std::str::FromStr;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;
use stampede_contracts::{Class, Code, Problem, SessionId, header};
use stampede_idempotency::Key;

use super::admit::{Bearer, Caller};
use super::body;
use crate::app::App;
use crate::domain::priority;

/// RFC 9218.
pub const PRIORITY: HeaderName = HeaderName::from_static("priority");

/// The largest lobby pass, in bytes; a real one has about 300.
const PASS_MAX: usize = 2 * 1024;

fn bearer(parts: &Parts) -> Bearer {
    parts.extensions.get::<Caller>().map_or(Bearer::Absent, |caller| caller.bearer)
}

/// The session whose token came with the request; without one 401.
#[derive(Debug, Clone, Copy)]
pub struct Session(pub SessionId);

impl FromRequestParts<App> for Session {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        match bearer(parts) {
            Bearer::Session(session) => Ok(Self(session)),
            Bearer::Absent | Bearer::Operator => Err(Problem::new(Code::Unauthenticated)),
            Bearer::Invalid => Err(invalid_token()),
        }
    }
}

/// Proof that the request came with a session or with an order's secret, whose owner judges it.
#[derive(Debug, Clone, Copy)]
pub struct SessionOrSecret;

impl FromRequestParts<App> for SessionOrSecret {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if parts.headers.get(header::ORDER_SECRET).is_some_and(is_secret) {
            return Ok(Self);
        }
        Session::from_request_parts(parts, app).await.map(|_session| Self)
    }
}

/// Whether it has the form of an order's secret: 32 bytes as hexadecimal digits. Its owner compares it.
fn is_secret(value: &HeaderValue) -> bool {
    value.len() == 64 && value.as_bytes().iter().all(u8::is_ascii_hexdigit)
}

/// Proof that an operator asks; without any token 401, with another one 403.
#[derive(Debug, Clone, Copy)]
pub struct Operator;

impl FromRequestParts<App> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        match bearer(parts) {
            Bearer::Operator => Ok(Self),
            Bearer::Session(_) => Err(Problem::new(Code::Forbidden)),
            Bearer::Absent => {
                Err(Problem::new(Code::Unauthenticated).detail("An operator's bearer token is needed."))
            }
            Bearer::Invalid => Err(invalid_token()),
        }
    }
}

fn invalid_token() -> Problem {
    Problem::new(Code::Unauthenticated).detail("The token is not valid or has expired.")
}

/// The one parameter of the path; what is no id of its kind is 400.
#[derive(Debug, Clone, Copy)]
pub struct Id<T>(pub T);

impl<T> FromRequestParts<App> for Id<T>
where
    T: FromStr<Err: Display>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let text: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, app).await;
        let Path(text) = text.map_err(|refusal| invalid_parameter(refusal.body_text()))?;
        text.parse().map(Self).map_err(|error: T::Err| invalid_parameter(error.to_string()))
    }
}

fn invalid_parameter(detail: String) -> Problem {
    Problem::new(Code::InvalidParameter).detail(detail)
}

/// The `Idempotency-Key` of a call that needs one.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(pub Key);

impl FromRequestParts<App> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        match Key::from_headers(&parts.headers) {
            Ok(Some(key)) => Ok(Self(key)),
            Ok(None) => Err(Problem::new(Code::KeyMissing)),
            Err(malformed) => Err(Problem::new(Code::KeyMalformed).detail(malformed.to_string())),
        }
    }
}

/// The `Lobby-Pass`, if there is one. Inventory verifies it; here only what cannot be one is refused.
#[derive(Debug, Clone)]
pub struct LobbyPass(pub Option<String>);

impl FromRequestParts<App> for LobbyPass {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(header::LOBBY_PASS).iter();
        let text = match (values.next(), values.next()) {
            (None, _) => return Ok(Self(None)),
            (Some(value), None) => value.to_str().ok(),
            (Some(_), Some(_)) => None,
        };
        match text.filter(|text| !text.is_empty() && text.len() <= PASS_MAX) {
            Some(text) => Ok(Self(Some(text.to_owned()))),
            None => Err(Problem::new(Code::PassInvalid)),
        }
    }
}

/// How urgent the client finds its own request; it can only lower it.
#[derive(Debug, Clone)]
pub struct Priority(Option<HeaderValue>);

impl Priority {
    /// The class of the request, given that of its function.
    pub fn class(&self, of_function: Class) -> Class {
        let wish = self.0.as_ref().and_then(|value| value.to_str().ok());
        priority::class(of_function, wish)
    }
}

impl FromRequestParts<App> for Priority {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Infallible> {
        Ok(Self(parts.headers.get(PRIORITY).cloned()))
    }
}

/// A JSON body, read and as it came: 415, 413, 408, or 400 with the place where it goes wrong.
#[derive(Debug, Clone)]
pub struct RawJson<T> {
    /// What it says.
    pub value: T,
    /// As it came.
    pub bytes: Bytes,
}

impl<T: DeserializeOwned> FromRequest<App> for RawJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(Code::UnsupportedMediaType));
        }
        let bytes = body::read(request.into_body(), body::MAX, app.times.body).await?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| Problem::new(Code::MalformedRequest).detail(error.to_string()))?;
        Ok(Self { value, bytes })
    }
}

/// Whether the body calls itself `application/json`, whatever parameters follow.
pub fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}
