//! Examples in the contract. A test reads each as what it is an example of.

use serde_json::{Value, json};

const SHOW: &str = "shw_0192f0c1a2b37c4d8e5f60718293a4b5";
const SECTION: &str = "sec_0192f0c1a2b37c4d8e5f60718293a4b6";
const ORDER: &str = "ord_0192f0c1a2b37c4d8e5f60718293a4b7";
const TICKET: &str = "tkt_0192f0c1a2b37c4d8e5f60718293a4b8";
const HOLD: &str = "hld_b1042_5f60718293a4b50192f0c1a2b37c4d8e";
const PLACE: &str = "lby_5f60718293a4b50192f0c1a2b37c4d8f";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const STARTS: &str = "2027-01-31T20:00:00.000Z";
const NOW: &str = "2026-12-01T09:30:00.000Z";
const SOON: &str = "2026-12-01T09:35:00.000Z";

pub(super) fn session() -> Value {
    json!({
        "token": "stp1.AZLwwaKzfE2OX2BxgpOktQAAAABqK2WA.4tZ0yC0d9b3nV2m1i5cT7p8Qx6Kf2y1aJ0sWl9uXqRk",
        "expires_at": "2026-12-02T09:30:00.000Z",
    })
}

fn summary() -> Value {
    json!({
        "show_id": SHOW,
        "slug": "club-night",
        "title": "Club Night",
        "venue": {"venue_id": "ven_0192f0c1a2b37c4d8e5f60718293a4b9", "name": "The Cellar", "city": "Aarhus"},
        "starts_at": STARTS,
        "sale_opens_at": NOW,
        "lobby": false,
        "price_from": {"amount": 4500, "currency": "EUR"},
    })
}

fn availability() -> Value {
    json!({"capacity": 500, "free": 320, "held": 12, "sold": 168})
}

pub(super) fn shows() -> Value {
    json!({"items": [summary()], "next_cursor": "MjAyNy0wMS0zMQ"})
}

pub(super) fn show() -> Value {
    let mut show = summary();
    show["cancel_until"] = json!(STARTS);
    show["sections"] = json!([{
        "section_id": SECTION,
        "name": "Floor",
        "price": {"amount": 4500, "currency": "EUR"},
        "numbered": true,
        "availability": availability(),
    }]);
    show["as_of"] = json!(NOW);
    show
}

pub(super) fn seats() -> Value {
    json!({
        "show_id": SHOW,
        "section_id": SECTION,
        "section": "Floor",
        "availability": availability(),
        "seats": [
            {"seat_id": "b1042-17", "row": "B", "number": 18, "state": "free"},
            {"seat_id": "b1042-18", "row": "B", "number": 19, "state": "sold"},
        ],
        "as_of": NOW,
    })
}

pub(super) fn new_show() -> Value {
    json!({
        "slug": "cellar-night",
        "title": "Club Night",
        "venue": {"name": "The Cellar", "city": "Aarhus"},
        "starts_at": STARTS,
        "currency": "EUR",
        "sections": [{"name": "Floor", "price": 4500, "seating": {"general_admission": 500}}],
    })
}

pub(super) fn waiting() -> Value {
    json!({
        "lobby_ticket": PLACE,
        "show_id": SHOW,
        "state": "waiting",
        "number": 1207,
        "ahead": 311,
        "eta_seconds": 32,
        "poll_after_ms": 2000,
    })
}

pub(super) fn admitted() -> Value {
    let mut place = waiting();
    place["state"] = json!("admitted");
    place["ahead"] = json!(0);
    place["eta_seconds"] = json!(0);
    place["pass"] = json!("pass1.9f86d081884c7d65.eyJwYXNzX2lkIjoi….c2lnbmF0dXJl");
    place["pass_expires_at"] = json!(SOON);
    place
}

pub(super) fn left() -> Value {
    let mut place = waiting();
    place["state"] = json!("left");
    place
}

pub(super) fn draw() -> Value {
    json!({
        "show_id": SHOW,
        "seed_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "seed": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    })
}

fn seat() -> Value {
    json!({"seat_id": "b1042-17", "section": "Floor", "row": "B", "number": 18})
}

pub(super) fn best() -> Value {
    json!({"section": SECTION, "quantity": 1})
}

pub(super) fn chosen() -> Value {
    json!({"seats": ["b1042-17"]})
}

pub(super) fn hold() -> Value {
    json!({
        "hold_id": HOLD,
        "show_id": SHOW,
        "section_id": SECTION,
        "quantity": 1,
        "seats": [seat()],
        "total": {"amount": 4500, "currency": "EUR"},
        "expires_at": SOON,
        "state": "held",
    })
}

pub(super) fn new_order() -> Value {
    json!({
        "hold_id": HOLD,
        "buyer": {"name": "Ada Lovelace", "email": "ada@example.org"},
        "payment": {"card_token": "tok_5f60718293a4b501"},
    })
}

pub(super) fn pending() -> Value {
    json!({
        "order_id": ORDER,
        "state": "pending",
        "hold_id": HOLD,
        "created_at": NOW,
        "tickets": [],
        "order_secret": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "timeline": [{"at": NOW, "step": "placed", "state": "done"}],
        "trace_id": TRACE,
    })
}

pub(super) fn order() -> Value {
    let mut order = pending();
    order["state"] = json!("confirmed");
    order["show_id"] = json!(SHOW);
    order["total"] = json!({"amount": 4500, "currency": "EUR"});
    order["cancel_until"] = json!(STARTS);
    order["tickets"] = json!([ticket()]);
    order
}

pub(super) fn cancelled() -> Value {
    let mut order = order();
    order["state"] = json!("cancelled");
    order["tickets"][0]["state"] = json!("revoked");
    order
}

pub(super) fn orders() -> Value {
    json!({"items": [order()]})
}

pub(super) fn ticket() -> Value {
    json!({
        "ticket_id": TICKET,
        "order_id": ORDER,
        "show_id": SHOW,
        "seat": seat(),
        "state": "valid",
        "code": "tkt1.9f86d081884c7d65.eyJ0aWNrZXRfaWQiOiI….c2lnbmF0dXJl",
    })
}

pub(super) fn ticket_keys() -> Value {
    json!({"keys": [{
        "kid": "9f86d081884c7d65",
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }]})
}

pub(super) fn test_cards() -> Value {
    json!({
        "tokens_url": "http://127.0.0.1:8090/tokens",
        "cards": [{"card_number": "4242424242424242", "behaviour": "works"}],
    })
}

pub(super) fn dead_letters() -> Value {
    json!({"items": [{
        "sequence": 7,
        "subject": "dlq.notify.notify",
        "origin_subject": "cmd.notify.tickets",
        "reason": "not a valid stampede.notify.command.v1: missing field `order_id`",
        "event_id": "0192f0c1a2b37c4d8e5f60718293a4ba",
        "at": NOW,
    }]})
}

pub(super) fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use stampede_contracts::api;

    use super::*;

    #[track_caller]
    fn is_a<T: Serialize + DeserializeOwned>(examples: &[Value]) {
        for example in examples {
            let read: T = serde_json::from_value(example.clone()).unwrap();
            let mut written = serde_json::to_value(read).unwrap();
            // What may be left out may also be written as null.
            if let Value::Object(fields) = &mut written {
                fields.retain(|name, value| !value.is_null() || example.get(name).is_some());
            }
            assert_eq!(&written, example);
        }
    }

    #[test]
    fn every_example_is_one() {
        is_a::<api::Session>(&[session()]);
        is_a::<api::Page<api::ShowSummary>>(&[shows()]);
        is_a::<api::Show>(&[show()]);
        is_a::<api::SeatMap>(&[seats()]);
        is_a::<api::NewShow>(&[new_show()]);
        is_a::<api::Place>(&[waiting(), admitted(), left()]);
        is_a::<api::Draw>(&[draw()]);
        is_a::<api::NewHold>(&[best(), chosen()]);
        is_a::<api::Hold>(&[hold()]);
        is_a::<api::NewOrder>(&[new_order()]);
        is_a::<api::Order>(&[pending(), order(), cancelled()]);
        is_a::<api::Page<api::Order>>(&[orders()]);
        is_a::<api::Ticket>(&[ticket()]);
        is_a::<api::TicketKeys>(&[ticket_keys()]);
        is_a::<api::TestCards>(&[test_cards()]);
        is_a::<api::Page<api::DeadLetter>>(&[dead_letters()]);
    }
}
