//! Sessions: anonymous, signed, stored nowhere.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use stampede_contracts::{SessionId, Timestamp, api};
use stampede_rate_limit::Decision;
use stampede_service::extract::Json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::admit::{Caller, refused};
use super::examples;
use super::openapi::problems;
use crate::app::App;
use crate::metrics::Limited;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create))
}

problems!(CreateProblems: RateLimited);

/// Begin a session.
///
/// Lobby places, holds, orders and tickets belong to the session that made them; for everybody else they are not there.
/// An address gets only so many sessions a minute.
#[utoipa::path(
    post,
    path = "/v1/sessions",
    tag = "Sessions",
    operation_id = "create_session",
    params(("Operator-Token" = Option<String>, Header, description = "Lifts the limits by address; for load tests.")),
    responses((
        status = 201,
        description = "A session. Send its token as `Authorization: Bearer …`.",
        body = api::Session,
        example = json!(examples::session()),
    ), CreateProblems),
)]
async fn create(State(app): State<App>, Extension(caller): Extension<Caller>) -> Response {
    let decision = if caller.unlimited { None } else { Some(app.limits.sessions.check(&caller.address)) };
    let mut response = match decision {
        Some(Decision::Refused { retry_after, .. }) => refused(&app, Limited::Sessions, retry_after),
        Some(Decision::Allowed { .. }) | None => {
            let session = app.sessions.issue(SessionId::new(), Timestamp::now());
            app.metrics.session_made();
            let body = api::Session { token: session.token, expires_at: session.expires_at };
            (StatusCode::CREATED, Json(body)).into_response()
        }
    };
    if let Some(decision) = decision {
        app.limits.sessions.insert_headers(&decision, response.headers_mut());
    }
    response
}
