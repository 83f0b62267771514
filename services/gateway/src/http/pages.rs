//! Pages for people: what this is, what the problems mean, and a place to try it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use stampede_contracts::{Code, Problem, api};
use stampede_service::extract::Json;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::examples;
use super::openapi::problems;
use crate::app::App;

/// Where the contract lies.
const CONTRACT: &str = "/openapi.json";

/// The page to try the API loads its parts from here and talks to this API; it needs inline styles and images in `data:`
/// URLs. Nothing comes from elsewhere.
const DOCS_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const WELCOME: &str = "\
Stampede sells tickets while a stampede of buyers arrives. This is its public API.

  GET  /docs            a page to try it
  GET  /openapi.json    the contract (OpenAPI 3.1)
  GET  /v1/shows        what is on
  POST /v1/sessions     begin here to buy
  GET  /v1/test-cards   how to pay without money, outside production
  GET  /problems/{code} what an error means
";

const WELCOME_PAGE: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Stampede</title>
<h1>Stampede</h1>
<p>Sells tickets while a stampede of buyers arrives. This is its public API.</p>
<ul>
<li><a href=\"/docs/\">Try it</a></li>
<li><a href=\"/openapi.json\">The contract</a> (OpenAPI 3.1)</li>
<li><a href=\"/v1/shows\">What is on</a></li>
</ul>
<p>To buy a ticket begin with <code>POST /v1/sessions</code>.</p>
</html>
";

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(welcome)).routes(routes!(problem)).routes(routes!(test_cards))
}

/// The page to try the API, and the contract it reads. Both were written when the process started.
pub(super) fn docs(contract: &str) -> Router<App> {
    // Its own default would send the contract to a validator on the internet.
    let config =
        Config::from(CONTRACT).validator_url("none").try_it_out_enabled(true).persist_authorization(false);
    let page: Router<App> = SwaggerUi::new("/docs").config(config).into();
    let contract: Arc<[u8]> = contract.as_bytes().into();
    let serve_contract = move || {
        let contract = Bytes::from_owner(Arc::clone(&contract));
        async move { ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], contract) }
    };
    page.layer(SetResponseHeaderLayer::overriding(CONTENT_SECURITY_POLICY, DOCS_POLICY))
        .layer(SetResponseHeaderLayer::if_not_present(CACHE_CONTROL, HeaderValue::from_static("no-cache")))
        .route(CONTRACT, axum::routing::get(serve_contract))
}

/// What this is and where to go.
#[utoipa::path(
    get,
    path = "/",
    tag = "About",
    operation_id = "welcome",
    responses((status = 200, description = "A few lines for a person.", body = String, content_type = "text/plain",
        example = json!(WELCOME))),
)]
async fn welcome(headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") { Html(WELCOME_PAGE).into_response() } else { WELCOME.into_response() }
}

problems!(NoSuchProblem: NotFound);

/// Explain a problem.
#[utoipa::path(
    get,
    path = "/problems/{code}",
    tag = "About",
    operation_id = "explain_problem",
    params(("code" = String, Path, description = "The problem's code.", example = "seats_taken")),
    responses(
        (status = 200, description = "What it means and what to do.", body = String, content_type = "text/plain",
            example = json!(explanation(Code::SeatsTaken))),
        NoSuchProblem,
    ),
)]
async fn problem(Path(code): Path<String>) -> Result<String, Problem> {
    let code: Code = code.parse().map_err(|()| Problem::new(Code::NotFound))?;
    Ok(explanation(code))
}

fn explanation(code: Code) -> String {
    format!("{code} (HTTP {})\n\n{}\n{}\n", code.status(), code.title(), advice(code))
}

fn advice(code: Code) -> &'static str {
    match code {
        Code::KeyInProgress => "Ask again with the same key after Retry-After.",
        Code::KeyReused => {
            "Use a new key for a new request; repeat the old one byte for byte to get its answer."
        }
        Code::SeatsTaken => "Nothing was held. Try other seats, or the same key again later.",
        Code::HoldExists => "Release the hold in `hold_id`, or order it.",
        Code::PaymentDeclined => {
            "Nothing was charged and the seats are held again. Try another card with another key."
        }
        Code::OrderFailed => "Nothing was charged. Begin again with a new hold and a new key.",
        _ => match code.status() {
            400 | 413 | 414 | 415 | 422 | 431 | 501 => {
                "The same request will fail again; `detail` says what to change."
            }
            401 => "Get a token from POST /v1/sessions and send it as `Authorization: Bearer …`.",
            403 => "Asking again will not help without another pass or token.",
            404 => "It does not exist, or it belongs to another session.",
            405 => "The header `Allow` names the methods.",
            429 | 503 => {
                "Nothing was done. Ask again, with the same key if there was one, after Retry-After."
            }
            408 | 504 => {
                "Ask again with the same key: if the first request had an effect, its answer comes back."
            }
            500 => "Quote `trace_id` to an operator. Asking again with the same key is safe.",
            _ => "The present state does not allow it.",
        },
    }
}

problems!(NoTestCards: RouteNotFound);

/// List the test cards and where to get a token for one; in production there are none.
#[utoipa::path(
    get,
    path = "/v1/test-cards",
    tag = "Buy",
    operation_id = "list_test_cards",
    responses((status = 200, description = "The cards.", body = api::TestCards, example = json!(examples::test_cards())), NoTestCards),
)]
async fn test_cards(State(app): State<App>) -> Result<Json<api::TestCards>, Problem> {
    let tokens_url = app.tokens_public_url.clone().ok_or(Problem::new(Code::RouteNotFound))?;
    let card = |(number, behaviour): &(&str, &str)| api::TestCard {
        card_number: (*number).to_owned(),
        behaviour: (*behaviour).to_owned(),
    };
    Ok(Json(api::TestCards { tokens_url, cards: api::TEST_CARDS.iter().map(card).collect() }))
}
