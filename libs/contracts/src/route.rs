//! Functions over HTTP: what `catalog`, `lobby` and `orders` offer, with the same paths inside as outside.

use std::time::Duration;

use crate::function::{Class, Guarantee};

/// A function over HTTP. What its guarantee forbids does not compile, as over request-reply.
pub trait Route: 'static {
    /// The service that offers it.
    const SERVICE: &'static str;
    /// What it is called in blueprints.
    const NAME: &'static str;
    /// Its method.
    const METHOD: &'static str;
    /// The template of its path.
    const PATH: &'static str;
    /// Its priority.
    const CLASS: Class;
    /// The longest time an answer may take, or the head of a stream.
    const DEADLINE: Duration;
    /// Its kind.
    type Guarantee: Guarantee;
}

/// Declares a function: `route!(/// doc Name, "service", "name", "METHOD", "/path", Kind, Class, millis);`
macro_rules! route {
    ($(#[$doc:meta])* $name:ident, $service:literal, $word:literal, $method:literal, $path:literal, $kind:ident, $class:ident, $millis:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}

        impl Route for $name {
            const SERVICE: &'static str = $service;
            const NAME: &'static str = $word;
            const METHOD: &'static str = $method;
            const PATH: &'static str = $path;
            const CLASS: Class = Class::$class;
            const DEADLINE: Duration = Duration::from_millis($millis);
            type Guarantee = crate::function::$kind;
        }
    };
}

route!(
    /// A page of shows.
    ListShows, "catalog", "list_shows", "GET", "/v1/shows", Safe, Browse, 2_000
);
route!(
    /// A show.
    GetShow, "catalog", "get_show", "GET", "/v1/shows/{show_id}", Safe, Browse, 2_000
);
route!(
    /// The seats of a section.
    GetSeats, "catalog", "get_seats", "GET", "/v1/shows/{show_id}/seats", Safe, Browse, 2_000
);
route!(
    /// Put a show on sale. Its key is the slug.
    CreateShow, "catalog", "create_show", "POST", "/v1/ops/shows", Keyed, Pay, 5_000
);
route!(
    /// Take a place. Its key is session and show.
    JoinLobby, "lobby", "join_lobby", "POST", "/v1/shows/{show_id}/lobby", Keyed, Join, 3_000
);
route!(
    /// The draw of a lobby.
    GetDraw, "lobby", "get_draw", "GET", "/v1/shows/{show_id}/lobby", Safe, Join, 2_000
);
route!(
    /// How a place stands.
    GetPlace, "lobby", "get_place", "GET", "/v1/lobby/{lobby_ticket}", Safe, Join, 2_000
);
route!(
    /// Leave. Its key is the ticket.
    LeaveLobby, "lobby", "leave_lobby", "DELETE", "/v1/lobby/{lobby_ticket}", Keyed, Join, 3_000
);
route!(
    /// How a place changes, as it changes.
    FollowPlace, "lobby", "follow_place", "GET", "/v1/lobby/{lobby_ticket}/events", Safe, Join, 3_000
);
route!(
    /// Order held seats. Its key is session and `Idempotency-Key`. It is answered when the saga has ended, or a little
    /// before the caller's deadline.
    PlaceOrder, "orders", "place_order", "POST", "/v1/orders", Keyed, Pay, 30_000
);
route!(
    /// The orders of a session.
    ListOrders, "orders", "list_orders", "GET", "/v1/orders", Safe, Pay, 2_000
);
route!(
    /// An order.
    GetOrder, "orders", "get_order", "GET", "/v1/orders/{order_id}", Safe, Pay, 2_000
);
route!(
    /// How an order changes, as it changes.
    FollowOrder, "orders", "follow_order", "GET", "/v1/orders/{order_id}/events", Safe, Pay, 3_000
);
route!(
    /// Cancel an order. Its key is the order. Answered like [`PlaceOrder`].
    CancelOrder, "orders", "cancel_order", "POST", "/v1/orders/{order_id}/cancel", Keyed, Pay, 30_000
);
route!(
    /// A ticket with its code.
    GetTicket, "orders", "get_ticket", "GET", "/v1/tickets/{ticket_id}", Safe, Pay, 2_000
);
route!(
    /// The keys that verify ticket codes.
    TicketKeys, "orders", "ticket_keys", "GET", "/v1/ticket-keys", Safe, Browse, 2_000
);
