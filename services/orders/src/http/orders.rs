//! Placing, reading and cancelling orders.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use stampede_contracts::{Code, OrderId, Problem, api};
use stampede_deadline::Deadline;
use stampede_idempotency::Key;
use stampede_service::extract::{Json, Path, Query, Session};

use super::caller::Asking;
use crate::app::{App, Cancelled, Error, PlaceOrder};
use crate::domain::{Buyer, CardToken, Reply};

const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u32 = 100;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/v1/orders", post(place).get(list))
        .route("/v1/orders/{order_id}", get(read))
        .route("/v1/orders/{order_id}/cancel", post(cancel))
}

async fn place(
    State(app): State<App>,
    Session(session): Session,
    request: Request,
) -> Result<Response, Problem> {
    let key = Key::from_headers(request.headers())
        .map_err(|malformed| Problem::new(Code::KeyMalformed).detail(malformed.to_string()))?
        .ok_or_else(|| Problem::new(Code::KeyMissing))?;
    let path = request.uri().path().to_owned();
    let (bytes, order) = read_body(request).await?;
    let place = PlaceOrder {
        session,
        key,
        fingerprint: app.fingerprinter().map(|by| by.fingerprint(&[path.as_bytes(), &bytes])),
        hold_id: order.hold_id,
        buyer: Buyer::try_new(&order.buyer.name, &order.buyer.email).map_err(Error::from)?,
        card: CardToken::try_new(&order.payment.card_token).map_err(Error::from)?,
    };
    let (id, reply) = app.place(place, deadline()).await?;
    Ok(placed(id, reply))
}

/// The body as it came, for the fingerprint, and what it says.
async fn read_body(request: Request) -> Result<(Bytes, api::NewOrder), Problem> {
    let (parts, body) = request.into_parts();
    let whole = Request::from_parts(parts.clone(), body);
    let bytes = Bytes::from_request(whole, &()).await.map_err(|rejection: BytesRejection| {
        let too_large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
        Problem::new(if too_large { Code::TooLarge } else { Code::MalformedRequest })
    })?;
    let again = Request::from_parts(parts, Body::from(bytes.clone()));
    let Json(order) = Json::from_request(again, &()).await?;
    Ok((bytes, order))
}

/// The stored answer, byte for byte.
fn placed(id: OrderId, reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let media_type = if status.is_success() { "application/json" } else { Problem::MEDIA_TYPE };
    let mut response = (status, reply.body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    if status.is_success() {
        locate(&mut response, id);
    }
    response
}

fn locate(response: &mut Response, id: OrderId) {
    // An id is made of letters, digits and an underscore.
    if let Ok(location) = HeaderValue::try_from(format!("/v1/orders/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageOf {
    cursor: Option<String>,
    limit: Option<u32>,
}

async fn list(
    State(app): State<App>,
    Session(session): Session,
    Query(page): Query<PageOf>,
) -> Result<Json<api::Page<api::Order>>, Problem> {
    let invalid = |detail: &str| Problem::new(Code::InvalidParameter).detail(detail);
    let cursor = page.cursor.as_deref().map(str::parse::<OrderId>).transpose();
    let cursor = cursor.map_err(|_| invalid("cursor must be the next_cursor of a page"))?;
    let limit = page.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(invalid("limit must be between 1 and 100"));
    }
    Ok(Json(app.orders(session, cursor, limit).await?))
}

async fn read(
    State(app): State<App>,
    Asking(caller): Asking,
    Path(id): Path<OrderId>,
) -> Result<Json<api::Order>, Problem> {
    Ok(Json(app.order(id, &caller).await?))
}

async fn cancel(
    State(app): State<App>,
    Asking(caller): Asking,
    Path(id): Path<OrderId>,
) -> Result<Response, Problem> {
    let Cancelled { order, is_settled } = app.cancel(id, &caller, deadline()).await?;
    if is_settled {
        return Ok(Json(order).into_response());
    }
    let mut response = (StatusCode::ACCEPTED, Json(order)).into_response();
    locate(&mut response, id);
    Ok(response)
}

/// The layers around every route have set it.
fn deadline() -> Deadline {
    stampede_deadline::current().unwrap_or_else(|| Deadline::after(DEADLINE_DEFAULT))
}

/// For a router without those layers.
const DEADLINE_DEFAULT: std::time::Duration = std::time::Duration::from_secs(5);
