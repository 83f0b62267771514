//! What only operators may do.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use stampede_contracts::route::CreateShow;
use stampede_contracts::{Code, Problem, api};
use stampede_service::extract::{Json, Query};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body;
use super::examples;
use super::extract::Operator;
use super::openapi::problems;
use super::pass::Passing;
use crate::app::App;
use crate::clients::dead_letters;

const LETTERS_DEFAULT: usize = 20;
const LETTERS_MAX: usize = 100;
/// The largest number that all clients read from JSON (RFC 8259, 6).
const CURSOR_MAX: u64 = 9_007_199_254_740_991;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_show)).routes(routes!(list_dead_letters))
}

problems!(ShowProblems: MalformedRequest, Forbidden, ShowExists, Contradiction, ValidationFailed);
problems!(LetterProblems: InvalidParameter, Forbidden);

/// Put a show on sale.
///
/// The slug makes it once: the same body again is the same show, another body under the same slug is refused.
#[utoipa::path(
    post,
    path = "/v1/ops/shows",
    tag = "Operate",
    operation_id = "create_show",
    request_body(content = api::NewShow, example = json!(examples::new_show())),
    security(("operator" = [])),
    responses(
        (status = 201, description = "The show.", body = api::Show, headers(("Location" = String, description = "The show.")),
            example = json!(examples::show())),
        (status = 200, description = "The show, as it was made before.", body = api::Show, example = json!(examples::show())),
        ShowProblems,
    ),
)]
async fn create_show(
    State(app): State<App>,
    _operator: Operator,
    request: Passing<{ body::OPERATOR_MAX }>,
) -> Result<Response, Problem> {
    request.ask::<CreateShow>(&app).await
}

/// Which page of a list.
#[derive(Debug, Deserialize)]
struct Which {
    cursor: Option<u64>,
    limit: Option<usize>,
}

/// List dead letters: commands and events that could not be handled, the oldest first.
#[utoipa::path(
    get,
    path = "/v1/ops/dead-letters",
    tag = "Operate",
    operation_id = "list_dead_letters",
    params(
        ("cursor" = Option<u64>, Query, minimum = 0, maximum = 9_007_199_254_740_991i64, description = "`next_cursor` of the page before."),
        ("limit" = Option<u32>, Query, description = "How many, 1 to 100.", minimum = 1, maximum = 100, example = 20),
    ),
    security(("operator" = [])),
    responses((status = 200, description = "A page of dead letters.", body = api::Page<api::DeadLetter>, example = json!(examples::dead_letters())), LetterProblems),
)]
async fn list_dead_letters(
    State(app): State<App>,
    _operator: Operator,
    query: Query<Which>,
) -> Result<Json<api::Page<api::DeadLetter>>, Problem> {
    let Query(Which { cursor, limit }) = query;
    let (limit, cursor) = (limit.unwrap_or(LETTERS_DEFAULT), cursor.unwrap_or(0));
    if cursor > CURSOR_MAX {
        return Err(Problem::new(Code::InvalidParameter).detail("cursor must be the next_cursor of a page."));
    }
    if !(1..=LETTERS_MAX).contains(&limit) {
        return Err(Problem::new(Code::InvalidParameter).detail(format!("limit must be 1 to {LETTERS_MAX}.")));
    }
    dead_letters::page(&app.bus, cursor, limit).await.map(Json)
}
