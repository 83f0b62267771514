//! The session that the gateway verified.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use stampede_contracts::{Code, Problem, SessionId, header};

/// The session in whose name a request comes, from the header that only the gateway sets; without it 401.
///
/// `Option<Session>` is for functions that strangers may use too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session(
    /// Its id.
    pub SessionId,
);

impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        read(parts)?.ok_or_else(|| Problem::new(Code::Unauthenticated))
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Self::Rejection> {
        read(parts)
    }
}

fn read(parts: &Parts) -> Result<Option<Session>, Problem> {
    let Some(value) = parts.headers.get(header::SESSION) else {
        return Ok(None);
    };
    let session = value.to_str().ok().and_then(|text| text.parse().ok());
    session.map(|id| Some(Session(id))).ok_or_else(|| Problem::new(Code::Unauthenticated))
}
