//! Who calls.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use stampede_contracts::{Code, Problem, header};
use stampede_service::extract::Session;

use crate::app::Caller;
use crate::domain::OrderSecret;

/// A session, the secret of an order, or both; without either 401.
pub(super) struct Asking(pub(super) Caller);

impl<S: Send + Sync> FromRequestParts<S> for Asking {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let session = <Session as OptionalFromRequestParts<S>>::from_request_parts(parts, state).await?;
        let secret = parts.headers.get(header::ORDER_SECRET).and_then(|value| value.to_str().ok());
        let caller = Caller {
            session: session.map(|Session(id)| id),
            secret: secret.map(|text| OrderSecret::from_stored(text.to_owned())),
        };
        if caller.session.is_none() && caller.secret.is_none() {
            return Err(Problem::new(Code::Unauthenticated));
        }
        Ok(Self(caller))
    }
}
