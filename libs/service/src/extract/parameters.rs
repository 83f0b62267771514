//! Parameters in the path and behind the question mark.

use axum::extract::FromRequestParts;
use axum::extract::rejection::PathRejection;
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;
use stampede_contracts::{Code, Problem};

/// The parameters of the path; one that cannot be read is refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path<T>(
    /// What was read.
    pub T,
);

impl<T, S> FromRequestParts<S> for Path<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(refusal(&rejection)),
        }
    }
}

/// The parameters of the query; one that is missing or cannot be read is refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<T>(
    /// What was read.
    pub T,
);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::new(Code::InvalidParameter).detail(rejection.body_text())),
        }
    }
}

fn refusal(rejection: &PathRejection) -> Problem {
    // A 5xx is a handler that asks for parameters its route does not have: our mistake, not the caller's.
    if rejection.status() == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(error = rejection.body_text(), "a handler does not fit its route");
        return Problem::new(Code::Internal);
    }
    Problem::new(Code::InvalidParameter).detail(rejection.body_text())
}
