//! Tickets, and the keys with which anybody can verify their codes.

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header;
use stampede_contracts::{Problem, TicketId, api};
use stampede_service::extract::{Json, Path};

use super::caller::Asking;
use crate::app::App;

pub(super) fn router() -> Router<App> {
    Router::new().route("/v1/tickets/{ticket_id}", get(read)).route("/v1/ticket-keys", get(keys))
}

async fn read(
    State(app): State<App>,
    Asking(caller): Asking,
    Path(id): Path<TicketId>,
) -> Result<Json<api::Ticket>, Problem> {
    Ok(Json(app.ticket(id, &caller).await?))
}

/// Public, and the same for everybody.
async fn keys(State(app): State<App>) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(app.ticket_keys()))
}
