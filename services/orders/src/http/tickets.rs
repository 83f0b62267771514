//! Tickets, and the keys with which anybody can verify their codes.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
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

async fn keys(State(app): State<App>) -> Json<api::TicketKeys> {
    Json(app.ticket_keys())
}
