//! The waiting room: passed through to `lobby`.

use axum::extract::State;
use axum::response::Response;
use stampede_contracts::route::{FollowPlace, GetDraw, GetPlace, JoinLobby, LeaveLobby};
use stampede_contracts::{LobbyTicket, Problem, ShowId, api};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::examples;
use super::extract::{Id, Session};
use super::openapi::{Event, problems};
use super::pass::Passing;
use crate::app::App;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(join, draw)).routes(routes!(place, leave)).routes(routes!(events))
}

problems!(JoinProblems: InvalidParameter, ShowNotFound, NoLobby, NotOnSale);
problems!(DrawProblems: InvalidParameter, ShowNotFound, NoLobby);
problems!(PlaceProblems: InvalidParameter, PlaceNotFound);

/// Take a place in the lobby of a show.
///
/// Whoever comes before the sale opens takes part in a draw; after that the order of arrival counts. A session has one
/// open place a show: asking again gives the same one.
#[utoipa::path(
    post,
    path = "/v1/shows/{show_id}/lobby",
    tag = "Lobby",
    operation_id = "join_lobby",
    params(("show_id" = ShowId, Path, description = "The show.")),
    security(("session" = [])),
    responses((
        status = 200,
        description = "The open place that this session has already.",
        body = api::Place,
        headers(("Location" = String, description = "Where to ask how it stands.")),
        example = json!(examples::waiting()),
    ), (
        status = 201,
        description = "The place.",
        body = api::Place,
        headers(("Location" = String, description = "Where to ask how it stands.")),
        example = json!(examples::waiting()),
    ), JoinProblems),
)]
async fn join(
    State(app): State<App>,
    _session: Session,
    _show: Id<ShowId>,
    request: Passing,
) -> Result<Response, Problem> {
    request.ask::<JoinLobby>(&app).await
}

/// Check the draw of a lobby.
///
/// The hash of the seed is published before anybody can join, the seed after the draw: whoever wants to can draw again.
#[utoipa::path(
    get,
    path = "/v1/shows/{show_id}/lobby",
    tag = "Lobby",
    operation_id = "get_draw",
    params(("show_id" = ShowId, Path, description = "The show.")),
    responses((status = 200, description = "The draw.", body = api::Draw, example = json!(examples::draw())), DrawProblems),
)]
async fn draw(State(app): State<App>, _show: Id<ShowId>, request: Passing) -> Result<Response, Problem> {
    request.read::<GetDraw>(&app).await
}

/// Read how a place stands.
///
/// Ask again after `poll_after_ms`, or follow the events.
#[utoipa::path(
    get,
    path = "/v1/lobby/{lobby_ticket}",
    tag = "Lobby",
    operation_id = "get_place",
    params(("lobby_ticket" = LobbyTicket, Path, description = "The place.")),
    security(("session" = [])),
    responses((
        status = 200,
        description = "The place; once admitted with the `pass` that holds ask for.",
        body = api::Place,
        example = json!(examples::admitted()),
    ), PlaceProblems),
)]
async fn place(
    State(app): State<App>,
    _session: Session,
    _place: Id<LobbyTicket>,
    request: Passing,
) -> Result<Response, Problem> {
    request.read::<GetPlace>(&app).await
}

/// Leave the lobby.
///
/// A pass ends with it, and so does a hold that was made with the pass and not ordered.
#[utoipa::path(
    delete,
    path = "/v1/lobby/{lobby_ticket}",
    tag = "Lobby",
    operation_id = "leave_lobby",
    params(("lobby_ticket" = LobbyTicket, Path, description = "The place.")),
    security(("session" = [])),
    responses((status = 200, description = "The place, left.", body = api::Place, example = json!(examples::left())), PlaceProblems),
)]
async fn leave(
    State(app): State<App>,
    _session: Session,
    _place: Id<LobbyTicket>,
    request: Passing,
) -> Result<Response, Problem> {
    request.ask::<LeaveLobby>(&app).await
}

/// Follow a place.
///
/// Server-sent events; the data of each is a place. Read them with `fetch` and the bearer token. A stream ends after a
/// while: connect again, the first event says how it stands.
#[utoipa::path(
    get,
    path = "/v1/lobby/{lobby_ticket}/events",
    tag = "Lobby",
    operation_id = "follow_place",
    params(
        ("lobby_ticket" = LobbyTicket, Path, description = "The place."),
    ),
    security(("session" = [])),
    responses((
        status = 200,
        description = "How the place stands, again and again.",
        body = Event,
        content_type = "text/event-stream",
        example = json!(examples::event("place", &examples::admitted())),
    ), PlaceProblems),
)]
async fn events(
    State(app): State<App>,
    _session: Session,
    _place: Id<LobbyTicket>,
    request: Passing,
) -> Result<Response, Problem> {
    request.follow::<FollowPlace>(&app).await
}
