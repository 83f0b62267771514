//! The public side: a buyer's browser turns a card number into a token, so that it never passes through a merchant.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use http::{Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use stampede_contracts::api::{TEST_CARDS, TestCard, TestCards};
use stampede_contracts::{Code, Problem};
use stampede_service::extract::Json;
use tower_http::cors::{Any, CorsLayer};

use crate::card::Card;

/// The routes for buyers; `tokens_url` is where they reach `POST /tokens`.
pub fn router(tokens_url: String) -> Router {
    Router::new()
        .route("/tokens", post(tokenise))
        .route("/test-cards", get(test_cards))
        .with_state(tokens_url)
}

/// Open to every origin: which shop a buyer comes from is not known here, and there is no cookie to misuse.
pub fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE])
        .max_age(Duration::from_secs(3_600))
}

// Without `Debug`: a card number is nothing for a log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    card_number: String,
}

#[derive(Serialize)]
struct Token {
    card_token: String,
}

async fn tokenise(Json(new): Json<NewToken>) -> Result<(StatusCode, Json<Token>), Problem> {
    let number: String =
        new.card_number.chars().filter(|character| !matches!(character, ' ' | '-')).collect();
    let invalid = |detail| Problem::new(Code::ValidationFailed).detail(detail);
    if !(12..=19).contains(&number.len()) || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid("card_number must have 12 to 19 digits"));
    }
    let card = Card::with_number(&number)
        .ok_or_else(|| invalid("this provider knows test cards only; GET /test-cards lists them"))?;
    Ok((StatusCode::CREATED, Json(Token { card_token: card.token() })))
}

async fn test_cards(State(tokens_url): State<String>) -> Json<TestCards> {
    let card = |&(number, behaviour): &(&str, &str)| TestCard {
        card_number: number.to_owned(),
        behaviour: behaviour.to_owned(),
    };
    Json(TestCards { tokens_url, cards: TEST_CARDS.iter().map(card).collect() })
}
