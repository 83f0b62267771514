//! Links from responses to the next operations, so that a machine can follow a purchase from the show to the ticket.

use serde_json::{Value, json};
use utoipa::openapi::link::{Link, LinkBuilder};
use utoipa::openapi::{OpenApi, RefOr};

use super::openapi::operations;

/// From a response of `from` with one of these statuses to `to`.
struct Way {
    from: &'static str,
    statuses: &'static [&'static str],
    to: &'static str,
    /// The parameter, and its place in the response.
    parameters: &'static [(&'static str, &'static str)],
    /// The part of the request body that comes from the response.
    body: Option<fn() -> Value>,
}

const fn way(
    from: &'static str,
    statuses: &'static [&'static str],
    to: &'static str,
    parameters: &'static [(&'static str, &'static str)],
) -> Way {
    Way { from, statuses, to, parameters, body: None }
}

impl Way {
    const fn with(self, body: fn() -> Value) -> Self {
        Self { body: Some(body), ..self }
    }

    fn link(&self) -> Link {
        let mut link = LinkBuilder::new().operation_id(self.to);
        for (name, place) in self.parameters {
            link = link.parameter(*name, format!("$response.body#/{place}"));
        }
        link.request_body(self.body.map(|body| body())).build()
    }
}

const MADE: &[&str] = &["200", "201"];
const PLACED: &[&str] = &["201", "202"];
const READ: &[&str] = &["200"];

const SHOW: &[(&str, &str)] = &[("show_id", "show_id")];
const FIRST_SHOW: &[(&str, &str)] = &[("show_id", "items/0/show_id")];
const SECTION: &[(&str, &str)] = &[("show_id", "show_id"), ("section", "sections/0/section_id")];
const PLACE: &[(&str, &str)] = &[("lobby_ticket", "lobby_ticket")];
const HOLD: &[(&str, &str)] = &[("hold_id", "hold_id")];
const ORDER: &[(&str, &str)] = &[("order_id", "order_id")];
const FIRST_ORDER: &[(&str, &str)] = &[("order_id", "items/0/order_id")];
const TICKET: &[(&str, &str)] = &[("ticket_id", "tickets/0/ticket_id")];

const WAYS: &[Way] = &[
    way("list_shows", READ, "get_show", FIRST_SHOW),
    way("list_shows", READ, "join_lobby", FIRST_SHOW),
    way("create_show", MADE, "get_show", SHOW),
    way("create_show", MADE, "get_seats", SECTION),
    way("create_show", MADE, "join_lobby", SHOW),
    way("get_show", READ, "get_seats", SECTION),
    way("get_show", READ, "get_draw", SHOW),
    way("get_show", READ, "join_lobby", SHOW),
    way("get_show", READ, "place_hold", SHOW).with(best),
    way("get_seats", READ, "place_hold", SHOW).with(chosen),
    way("join_lobby", MADE, "get_place", PLACE),
    way("join_lobby", MADE, "follow_place", PLACE),
    way("join_lobby", MADE, "leave_lobby", PLACE),
    way("get_place", READ, "place_hold", &[("show_id", "show_id"), ("Lobby-Pass", "pass")]),
    way("place_hold", &["201"], "get_hold", HOLD),
    way("place_hold", &["201"], "release_hold", HOLD),
    way("place_hold", &["201"], "place_order", &[]).with(held),
    way("place_order", PLACED, "get_order", ORDER),
    way("place_order", PLACED, "follow_order", ORDER),
    way("place_order", PLACED, "cancel_order", ORDER),
    way("place_order", &["201"], "get_ticket", TICKET),
    way("list_orders", READ, "get_order", FIRST_ORDER),
    way("get_order", READ, "get_ticket", TICKET),
    way("get_order", READ, "cancel_order", ORDER),
];

fn best() -> Value {
    json!({"section": "$response.body#/sections/0/section_id", "quantity": 1})
}

fn chosen() -> Value {
    json!({"seats": ["$response.body#/seats/0/seat_id"]})
}

fn held() -> Value {
    json!({"hold_id": "$response.body#/hold_id"})
}

/// Adds each link to the responses that it begins at.
pub(super) fn add(document: &mut OpenApi) {
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        let id = operation.operation_id.clone().unwrap_or_default();
        for way in WAYS.iter().filter(|way| way.from == id) {
            for status in way.statuses {
                if let Some(RefOr::T(response)) = operation.responses.responses.get_mut(*status) {
                    response.links.insert(way.to.to_owned(), way.link().into());
                }
            }
        }
    }
}
