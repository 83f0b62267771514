//! The routes, at the same paths as at the public door.

use std::str::FromStr;

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use stampede_contracts::{
    Code, Problem, SectionId, ShowId, Timestamp,
    api::{NewShow, Page, SeatMap, Show, ShowSummary},
};
use stampede_postgres::Failure;
use stampede_service::extract::{Json, Path, Query};

use crate::{
    app::App,
    domain::{ShowRecord, section_view},
    store::{Created, Cursor, StoreError},
};

/// Shows on a page when nobody says how many.
const PAGE_DEFAULT: u32 = 20;
/// Shows on a page, at most.
const PAGE_MAX: u32 = 100;
/// The largest description of a show, in bytes: a hundred sections with all their rows.
const NEW_SHOW_MAX: usize = 1024 * 1024;

/// All routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/v1/shows", get(list))
        .route("/v1/shows/{show_id}", get(read))
        .route("/v1/shows/{show_id}/seats", get(seats))
        .route("/v1/ops/shows", post(create).layer(DefaultBodyLimit::max(NEW_SHOW_MAX)))
        .with_state(app)
}

#[derive(Deserialize)]
struct ListQuery {
    cursor: Option<String>,
    limit: Option<u32>,
}

async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<ShowSummary>>, Problem> {
    let invalid = |detail: &str| Problem::new(Code::InvalidParameter).detail(detail);
    let limit = query.limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(invalid("limit: 1 to 100"));
    }
    let after =
        query.cursor.map(|text| text.parse()).transpose().map_err(|()| invalid("cursor: not from a page"))?;
    let (shows, next) = app.store.page(after, limit).await.map_err(problem)?;
    let next_cursor = next.map(|cursor| cursor.to_string());
    Ok(Json(Page { items: shows.iter().map(ShowRecord::summary).collect(), next_cursor }))
}

async fn read(State(app): State<App>, Path(show_id): Path<ShowId>) -> Result<Json<Show>, Problem> {
    let show = app.show(show_id).await.map_err(problem)?.ok_or(Problem::new(Code::ShowNotFound))?;
    Ok(Json(view(&app, &show)))
}

#[derive(Deserialize)]
struct SeatsQuery {
    section: SectionId,
}

async fn seats(
    State(app): State<App>,
    Path(show_id): Path<ShowId>,
    Query(query): Query<SeatsQuery>,
) -> Result<Json<SeatMap>, Problem> {
    let show = app.show(show_id).await.map_err(problem)?.ok_or(Problem::new(Code::ShowNotFound))?;
    let section = show.sections.iter().find(|section| section.section_id == query.section);
    let section = section.ok_or(Problem::new(Code::SectionNotFound))?;
    let building =
        || Problem::new(Code::Unavailable).detail("the seat map of this show is still being built");
    Ok(Json(SeatMap {
        show_id,
        section_id: section.section_id,
        section: section.name.clone(),
        availability: app.copies.section(show_id, section.section_id).ok_or_else(building)?,
        seats: app.copies.seats(show_id, section.section_id).ok_or_else(building)?,
        as_of: app.copies.as_of(show_id).ok_or_else(building)?,
    }))
}

async fn create(State(app): State<App>, Json(request): Json<NewShow>) -> Result<Response, Problem> {
    let show = ShowRecord::try_new(&request, Timestamp::now()).map_err(|broken| {
        let code = if broken.is_contradiction() { Code::Contradiction } else { Code::ValidationFailed };
        Problem::new(code).detail(broken.to_string())
    })?;
    match app.store.create(show, &request).await.map_err(problem)? {
        Created::New(show) => {
            tracing::info!(show = %show.show_id, slug = show.slug, "a new show");
            let location = [("location", format!("/v1/shows/{}", show.show_id))];
            Ok((axum::http::StatusCode::CREATED, location, Json(view(&app, &show))).into_response())
        }
        Created::Before(show) => Ok(Json(view(&app, &show)).into_response()),
        Created::SlugTaken => Err(Problem::new(Code::ShowExists)),
    }
}

fn view(app: &App, show: &ShowRecord) -> Show {
    let sections = show.sections.iter().map(|plan| {
        let mut section = section_view(plan);
        section.availability = app.copies.section(show.show_id, plan.section_id);
        section
    });
    Show {
        summary: show.summary(),
        cancel_until: show.cancel_until,
        lobby_rules: show.lobby.clone(),
        sections: sections.collect(),
        as_of: app.copies.as_of(show.show_id),
    }
}

// The one place where an error becomes an answer, and where its chain is logged.
fn problem(error: StoreError) -> Problem {
    tracing::error!(error = &error as &dyn std::error::Error, "the request failed");
    match error {
        StoreError::Database(error) => Problem::new(Failure::of(&error).code()),
        StoreError::Corrupt(_) => Problem::new(Code::Internal),
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.starts_at.unix_millis(), self.show_id)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (millis, show) = text.split_once('.').ok_or(())?;
        let starts_at = millis.parse().ok().and_then(Timestamp::from_unix_millis).ok_or(())?;
        Ok(Self { starts_at, show_id: show.parse().map_err(|_| ())? })
    }
}
