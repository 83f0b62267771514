//! Replies as the merchant sees them, those included that it does not see.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use stampede_contracts::{Code, Problem, Timestamp};
use stampede_service::extract::Json;

use crate::domain::{Operation, Status};
use crate::provider::Reply;

/// How long silence lasts before the connection breaks. Every sensible merchant has hung up by then.
const SILENCE: Duration = Duration::from_secs(30);

/// An operation as JSON.
#[derive(Debug, Serialize)]
pub(super) struct View {
    key: String,
    sequence: i64,
    kind: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    about: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    at: Timestamp,
}

impl From<Operation> for View {
    fn from(operation: Operation) -> Self {
        let Operation { key, seq, kind, status, id, about, amount, currency, reference, reason, at } =
            operation;
        let (kind, status) = (kind.as_str(), status.as_str());
        Self { key, sequence: seq, kind, status, id, about, amount, currency, reference, reason, at }
    }
}

/// The reply to something that was to be done: 201 done, 402 declined, 409 refused.
pub(super) async fn performed(reply: Reply) -> Response {
    match reply {
        Reply::Known(operation) => {
            let status = match operation.status {
                Status::Authorised | Status::Captured | Status::Voided | Status::Refunded => {
                    StatusCode::CREATED
                }
                Status::Declined => StatusCode::PAYMENT_REQUIRED,
                Status::Refused | Status::Cancelled => StatusCode::CONFLICT,
            };
            let mut view = View::from(operation);
            if view.status == Status::Cancelled.as_str() {
                // The tombstone is no answer to a request; that it refuses is.
                view.status = Status::Refused.as_str();
                view.reason = Some("key_cancelled".to_owned());
            }
            (status, Json(view)).into_response()
        }
        other => otherwise(other).await,
    }
}

/// The reply to a question about a key: 200 whatever became of it, 404 when nothing is known.
pub(super) async fn told(reply: Reply) -> Response {
    match reply {
        Reply::Known(operation) => Json(View::from(operation)).into_response(),
        other => otherwise(other).await,
    }
}

async fn otherwise(reply: Reply) -> Response {
    match reply {
        Reply::Known(_) | Reply::Failed => Problem::new(Code::Internal).into_response(),
        Reply::Unknown => (StatusCode::NOT_FOUND, Json(json!({ "status": "unknown" }))).into_response(),
        Reply::OtherRequest => Problem::new(Code::KeyReused).into_response(),
        Reply::Full => Problem::new(Code::Busy).into_response(),
        Reply::Unavailable => Problem::new(Code::Unavailable).into_response(),
        Reply::Broken => broken(),
        Reply::Silence => {
            tokio::time::sleep(SILENCE).await;
            broken()
        }
    }
}

/// A response that never comes: its body fails before the first byte of the head has left, so that hyper has nothing
/// better to do than to close the connection.
pub(super) fn broken() -> Response {
    let nothing = futures::stream::once(async { Err::<Vec<u8>, _>(io::Error::other("lost on purpose")) });
    Response::new(Body::from_stream(nothing))
}
