//! What is on: passed through to `catalog`, and from the last copies where that does not answer. Nobody needs a session
//! to look.

use axum::extract::State;
use axum::response::Response;
use stampede_contracts::route::{GetSeats, GetShow, ListShows};
use stampede_contracts::{Problem, SectionId, ShowId, api};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::examples;
use super::extract::Id;
use super::openapi::problems;
use super::pass::Passing;
use crate::app::App;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(seats))
}

problems!(ListProblems: InvalidParameter);
problems!(ShowProblems: InvalidParameter, ShowNotFound);
problems!(SeatProblems: InvalidParameter, ShowNotFound, SectionNotFound);

/// List shows.
#[utoipa::path(
    get,
    path = "/v1/shows",
    tag = "Browse",
    operation_id = "list_shows",
    params(
        ("cursor" = Option<String>, Query, pattern = "^(0|[1-9][0-9]{0,13})\\.shw_[0-9a-f]{32}$", description = "`next_cursor` of the page before."),
        ("limit" = Option<u32>, Query, description = "How many, 1 to 100.", minimum = 1, maximum = 100, example = 20),
    ),
    responses((status = 200, description = "A page of shows.", body = api::Page<api::ShowSummary>, example = json!(examples::shows())), ListProblems),
)]
async fn list(State(app): State<App>, request: Passing) -> Result<Response, Problem> {
    request.browse::<ListShows>(&app).await
}

/// Read a show: sections, prices, and how many seats are left.
///
/// Availability is a copy that is a moment behind; `as_of` says how old it is. What counts is the answer to a hold.
#[utoipa::path(
    get,
    path = "/v1/shows/{show_id}",
    tag = "Browse",
    operation_id = "get_show",
    params(("show_id" = ShowId, Path, description = "The show.")),
    responses((status = 200, description = "The show.", body = api::Show, example = json!(examples::show())), ShowProblems),
)]
async fn show(State(app): State<App>, _show: Id<ShowId>, request: Passing) -> Result<Response, Problem> {
    request.browse::<GetShow>(&app).await
}

/// Read the seat map of a section.
#[utoipa::path(
    get,
    path = "/v1/shows/{show_id}/seats",
    tag = "Browse",
    operation_id = "get_seats",
    params(
        ("show_id" = ShowId, Path, description = "The show."),
        ("section" = SectionId, Query, description = "The section."),
    ),
    responses((status = 200, description = "The seats of the section.", body = api::SeatMap, example = json!(examples::seats())), SeatProblems),
)]
async fn seats(State(app): State<App>, _show: Id<ShowId>, request: Passing) -> Result<Response, Problem> {
    request.browse::<GetSeats>(&app).await
}
