//! A JSON body.

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stampede_contracts::{Code, Problem};

/// A JSON body, read from a request or written as an answer.
///
/// It is refused with 415 (not `application/json`), 413 (too large), or 400 (no JSON, or not of the shape of `T`; the
/// detail says where).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(
    /// What was read, or is to be written.
    pub T,
);

impl<T, S> FromRequest<S> for Json<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(refusal(&rejection)),
        }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

fn refusal(rejection: &JsonRejection) -> Problem {
    match rejection {
        JsonRejection::MissingJsonContentType(_) => Problem::new(Code::UnsupportedMediaType),
        JsonRejection::BytesRejection(bytes) if bytes.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(Code::TooLarge)
        }
        other => Problem::new(Code::MalformedRequest).detail(other.body_text()),
    }
}
