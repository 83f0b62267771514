//! The session that the gateway verified.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::HeaderValue;
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
        let value = parts.headers.get(header::SESSION);
        value.and_then(read).ok_or_else(|| Problem::new(Code::Unauthenticated))
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Self::Rejection> {
        match parts.headers.get(header::SESSION).map(read) {
            // Nobody is a stranger by mistake: a header that cannot be read is refused here too.
            Some(None) => Err(Problem::new(Code::Unauthenticated)),
            Some(session) => Ok(session),
            None => Ok(None),
        }
    }
}

fn read(value: &HeaderValue) -> Option<Session> {
    value.to_str().ok()?.parse().ok().map(Session)
}
