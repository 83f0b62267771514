//! The routes, at the same paths as at the public door.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::{get, post},
};
use futures::Stream;
use stampede_bus::CallError;
use stampede_contracts::{
    Code, LobbyTicket, Problem, SessionId, ShowId,
    api::{self, PlaceState},
};
use stampede_postgres::Failure;
use stampede_service::extract::{Json, Path, Session};
use tokio::time::Instant;

use crate::app::{App, AppError};

/// Comments that keep proxies from closing a silent stream.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);
/// A stream ends after this; the client comes back if it still cares.
const STREAM_MAX: Duration = Duration::from_secs(15 * 60);

/// All routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/v1/shows/{show_id}/lobby", post(join).get(draw))
        .route("/v1/lobby/{lobby_ticket}", get(read).delete(leave))
        .route("/v1/lobby/{lobby_ticket}/events", get(follow))
        .with_state(app)
}

async fn join(
    State(app): State<App>,
    Session(session): Session,
    Path(show): Path<ShowId>,
) -> Result<Response, Problem> {
    let (place, is_new) = app.join(show, session).await.map_err(problem)?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let location = [("location", format!("/v1/lobby/{}", place.lobby_ticket))];
    Ok((status, location, Json(place)).into_response())
}

async fn draw(State(app): State<App>, Path(show): Path<ShowId>) -> Result<Json<api::Draw>, Problem> {
    app.draw(show).await.map(Json).map_err(problem)
}

async fn read(
    State(app): State<App>,
    Session(session): Session,
    Path(ticket): Path<LobbyTicket>,
) -> Result<Json<api::Place>, Problem> {
    present(app.place(ticket, session).await).map(Json)
}

/// A place that was left is gone (RFC 9110, 9.3.5): only the response to leaving it, and a stream that is open then,
/// still show it.
fn present(place: Result<api::Place, AppError>) -> Result<api::Place, Problem> {
    match place.map_err(problem)? {
        api::Place { state: PlaceState::Left, .. } => Err(Problem::new(Code::PlaceNotFound)),
        place => Ok(place),
    }
}

async fn leave(
    State(app): State<App>,
    Session(session): Session,
    Path(ticket): Path<LobbyTicket>,
) -> Result<Json<api::Place>, Problem> {
    app.leave(ticket, session).await.map(Json).map_err(problem)
}

async fn follow(
    State(app): State<App>,
    Session(session): Session,
    Path(ticket): Path<LobbyTicket>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let first = present(app.place(ticket, session).await)?;
    let following =
        Following { app, session, next: Some(first), shown: None, ends_at: Instant::now() + STREAM_MAX };
    let events = futures::stream::unfold(following, Following::next);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_EVERY)))
}

struct Following {
    app: App,
    session: SessionId,
    next: Option<api::Place>,
    shown: Option<api::Place>,
    ends_at: Instant,
}

impl Following {
    /// The next change; the end after a place that has ended, after a quarter of an hour, when it cannot be read, or when
    /// this replica drains: the client comes back, to another one.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            let place = match self.next.take() {
                Some(place) => place,
                None => self.look_again().await?,
            };
            if self.shown.as_ref() != Some(&place) {
                let event = Event::default().event("place").json_data(&place).ok()?;
                self.shown = Some(place);
                return Some((Ok(event), self));
            }
        }
    }

    async fn look_again(&self) -> Option<api::Place> {
        let shown = self.shown.as_ref()?;
        let open = matches!(shown.state, PlaceState::Early | PlaceState::Waiting | PlaceState::Admitted);
        if !open || Instant::now() > self.ends_at {
            return None;
        }
        let pause = tokio::time::sleep(Duration::from_millis(shown.poll_after_ms.into()));
        self.app.draining().run_until_cancelled(pause).await?;
        self.app.place(shown.lobby_ticket, self.session).await.ok()
    }
}

// The one place where an error becomes an answer, and where its chain is logged.
fn problem(error: AppError) -> Problem {
    let problem = match &error {
        AppError::Refused(problem) => return problem.clone(),
        AppError::Inventory(refused @ CallError::Refused(_)) => return refused.clone().into(),
        AppError::Inventory(CallError::TimedOut) => Problem::new(Code::DeadlineExceeded),
        AppError::Inventory(_) => Problem::new(Code::Unavailable),
        AppError::Database(error) => Problem::new(Failure::of(error).code()),
    };
    tracing::error!(error = &error as &dyn std::error::Error, "the request failed");
    problem
}
