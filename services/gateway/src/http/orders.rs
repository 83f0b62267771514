//! Orders and tickets: passed through to `orders`.

use axum::extract::State;
use axum::response::Response;
use stampede_contracts::route::{
    CancelOrder, FollowOrder, GetOrder, GetTicket, ListOrders, PlaceOrder, TicketKeys,
};
use stampede_contracts::{OrderId, Problem, TicketId, api};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::examples;
use super::extract::{Id, IdempotencyKey, Session, SessionOrSecret};
use super::openapi::{Event, problems};
use super::pass::Passing;
use crate::app::App;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(place, list))
        .routes(routes!(order))
        .routes(routes!(events))
        .routes(routes!(cancel))
        .routes(routes!(ticket))
        .routes(routes!(ticket_keys))
}

problems!(
    PlaceProblems:
    MalformedRequest, KeyMissing, KeyMalformed, PaymentDeclined, HoldNotFound, HoldGone, HoldAttached, OrderFailed,
    KeyInProgress, ValidationFailed, KeyReused
);
problems!(ListProblems: InvalidParameter);
problems!(OrderProblems: InvalidParameter, OrderNotFound);
problems!(CancelProblems: InvalidParameter, OrderNotFound, CancelTooLate, OrderFailed, Conflict);
problems!(TicketProblems: InvalidParameter, TicketNotFound);

/// Order held seats.
///
/// The answer comes when the purchase is settled, or just before your deadline as 202 with a `Location` to follow. The
/// same key and body again give the first answer, byte for byte. After 402 the seats are held again; another card needs
/// another key.
#[utoipa::path(
    post,
    path = "/v1/orders",
    tag = "Buy",
    operation_id = "place_order",
    params(
        ("Idempotency-Key" = String, Header,
            pattern = r##"^("([!#-\[\]-~]|\\["\\]){1,255}"|[!#$%&'*+.^_`|~:/0-9A-Za-z-]{1,255})$"##,
            description = "Names this order: a quoted string or a bare word of at most 255 characters. A new one for each, and the same for a repeat. Kept for 24 hours."),
    ),
    request_body(content = api::NewOrder, example = json!(examples::new_order())),
    security(("session" = [])),
    responses(
        (status = 201, description = "Paid; the tickets are in it.", body = api::Order,
            headers(("Location" = String, description = "The order.")),
            example = json!(examples::order())),
        (status = 202, description = "On its way; follow the `Location`.", body = api::Order,
            headers(("Location" = String, description = "The order.")),
            example = json!(examples::pending())),
        PlaceProblems,
    ),
)]
async fn place(
    State(app): State<App>,
    _session: Session,
    _key: IdempotencyKey,
    request: Passing,
) -> Result<Response, Problem> {
    request.ask::<PlaceOrder>(&app).await
}

/// List the orders of this session.
#[utoipa::path(
    get,
    path = "/v1/orders",
    tag = "Buy",
    operation_id = "list_orders",
    params(
        ("cursor" = Option<String>, Query, pattern = "^ord_[0-9a-f]{32}$", description = "`next_cursor` of the page before."),
        ("limit" = Option<u32>, Query, description = "How many, 1 to 100.", minimum = 1, maximum = 100, example = 20),
    ),
    security(("session" = [])),
    responses((status = 200, description = "A page of orders.", body = api::Page<api::Order>, example = json!(examples::orders())), ListProblems),
)]
async fn list(State(app): State<App>, _session: Session, request: Passing) -> Result<Response, Problem> {
    request.read::<ListOrders>(&app).await
}

/// Read an order: its state, its tickets, and every step so far.
#[utoipa::path(
    get,
    path = "/v1/orders/{order_id}",
    tag = "Buy",
    operation_id = "get_order",
    params(
        ("order_id" = OrderId, Path, description = "The order."),
    ),
    security(("session" = []), ("order_secret" = [])),
    responses((status = 200, description = "The order.", body = api::Order, example = json!(examples::order())), OrderProblems),
)]
async fn order(
    State(app): State<App>,
    _proof: SessionOrSecret,
    _order: Id<OrderId>,
    request: Passing,
) -> Result<Response, Problem> {
    request.read::<GetOrder>(&app).await
}

/// Follow an order.
///
/// Server-sent events; the data of each is the order. Read them with `fetch` and the bearer token. A stream ends after a
/// while: connect again, the first event says how it stands.
#[utoipa::path(
    get,
    path = "/v1/orders/{order_id}/events",
    tag = "Buy",
    operation_id = "follow_order",
    params(
        ("order_id" = OrderId, Path, description = "The order."),
    ),
    security(("session" = []), ("order_secret" = [])),
    responses((
        status = 200,
        description = "The order, each time it changes.",
        body = Event,
        content_type = "text/event-stream",
        example = json!(examples::event("order", &examples::order())),
    ), OrderProblems),
)]
async fn events(
    State(app): State<App>,
    _proof: SessionOrSecret,
    _order: Id<OrderId>,
    request: Passing,
) -> Result<Response, Problem> {
    request.follow::<FollowOrder>(&app).await
}

/// Cancel an order: the tickets are revoked, the seats released, the money given back.
#[utoipa::path(
    post,
    path = "/v1/orders/{order_id}/cancel",
    tag = "Buy",
    operation_id = "cancel_order",
    params(
        ("order_id" = OrderId, Path, description = "The order."),
    ),
    security(("session" = []), ("order_secret" = [])),
    responses(
        (status = 200, description = "Cancelled, and refunded.", body = api::Order, example = json!(examples::cancelled())),
        (status = 202, description = "On its way; follow the `Location`.", body = api::Order,
            headers(("Location" = String, description = "The order.")),
            example = json!(examples::pending())),
        CancelProblems,
    ),
)]
async fn cancel(
    State(app): State<App>,
    _proof: SessionOrSecret,
    _order: Id<OrderId>,
    request: Passing,
) -> Result<Response, Problem> {
    request.ask::<CancelOrder>(&app).await
}

/// Read a ticket with its signed code.
#[utoipa::path(
    get,
    path = "/v1/tickets/{ticket_id}",
    tag = "Buy",
    operation_id = "get_ticket",
    params(
        ("ticket_id" = TicketId, Path, description = "The ticket."),
    ),
    security(("session" = []), ("order_secret" = [])),
    responses((status = 200, description = "The ticket.", body = api::Ticket, example = json!(examples::ticket())), TicketProblems),
)]
async fn ticket(
    State(app): State<App>,
    _proof: SessionOrSecret,
    _ticket: Id<TicketId>,
    request: Passing,
) -> Result<Response, Problem> {
    request.read::<GetTicket>(&app).await
}

/// Fetch the public keys that verify ticket codes offline.
#[utoipa::path(
    get,
    path = "/v1/ticket-keys",
    tag = "Buy",
    operation_id = "get_ticket_keys",
    responses((status = 200, description = "A JSON Web Key Set (RFC 7517).", body = api::TicketKeys, example = json!(examples::ticket_keys()))),
)]
async fn ticket_keys(State(app): State<App>, request: Passing) -> Result<Response, Problem> {
    request.read::<TicketKeys>(&app).await
}
