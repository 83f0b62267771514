//! Rules 7 and 8 against what buyers were told.

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::types::uuid::Uuid;
use stampede::load::Entry;
use stampede::verify::Rule;
use stampede_contracts::inventory::{HoldState, HoldView};
use stampede_contracts::{HoldId, LobbyTicket, OrderId, TicketId, Timestamp, api};

use super::world::World;

/// What buyers of the clean world were told, by name.
struct History {
    world: World,
    lines: Vec<(&'static str, Entry)>,
}

fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entry(
    buyer: u64,
    step: &str,
    status: u16,
    key: Option<&str>,
    digest: Option<String>,
    body: Option<Value>,
) -> Entry {
    let (step, key) = (step.to_owned(), key.map(str::to_owned));
    Entry { at: Timestamp::now(), buyer, step, key, status: Some(status), took_ms: 1.0, body, digest }
}

impl History {
    async fn new() -> Self {
        let world = World::new().await;
        let first = hold(&world, 1).await;
        let released = hold(&world, 8).await;
        let order = order(&world, 1, "confirmed").await;
        let cancelled = order_body(id(&world, "order", 5).await, id(&world, "hold", 5).await, 2, "cancelled");
        let answer = |number: u32| Some(hex(format!("answer {number}").as_bytes()));
        let lines = vec![
            ("hold", first),
            ("order", entry(1, "order", 201, Some("order-1"), answer(1), Some(order.clone()))),
            ("again", entry(1, "order again", 201, Some("order-1"), answer(1), Some(order))),
            (
                "declined",
                entry(
                    3,
                    "order",
                    402,
                    Some("order-3"),
                    answer(3),
                    Some(json!({ "code": "payment_declined" })),
                ),
            ),
            ("cancel", entry(5, "cancel", 200, None, None, Some(cancelled))),
            ("held", released),
            ("release", entry(8, "release", 204, None, None, None)),
            ("lobby", entry(6, "lobby", 200, None, None, Some(place(&world, 6, "waiting").await))),
        ];
        Self { world, lines }
    }

    fn line(&mut self, name: &str) -> &mut Entry {
        self.lines.iter_mut().find(|(known, _)| *known == name).map(|(_, entry)| entry).unwrap()
    }

    fn body(&mut self, name: &str) -> &mut Value {
        self.line(name).body.as_mut().unwrap()
    }

    async fn breaks(mut self, rule: Rule, words: &str) {
        self.write();
        self.world.breaks(rule, words).await;
    }

    fn write(&mut self) {
        let lines = self.lines.iter().map(|(_, entry)| serde_json::to_string(entry).unwrap() + "\n");
        self.world.sources.histories = vec![self.world.file("history/a.jsonl", &lines.collect::<String>())];
    }
}

async fn id(world: &World, name: &str, number: i32) -> Uuid {
    let query = sqlx::query_scalar("SELECT id($1, $2)").bind(name).bind(number);
    query.fetch_one(world.pool("orders")).await.unwrap()
}

/// The answer to placing a hold, as the gateway gave it.
async fn hold(world: &World, number: i32) -> Entry {
    let Json(view): Json<HoldView> = sqlx::query_scalar("SELECT placed FROM hold WHERE id = id('hold', $1)")
        .bind(number)
        .fetch_one(world.pool("inventory"))
        .await
        .unwrap();
    let hold = api::Hold {
        hold_id: view.hold_id,
        show_id: view.show_id,
        section_id: view.section_id,
        quantity: view.quantity,
        seats: view.seats,
        total: view.total,
        expires_at: view.expires_at,
        state: HoldState::Held,
    };
    let digest = hex(&serde_json::to_vec(&hold).unwrap());
    let key = format!("hold-{}", view.hold_id.uuid());
    let buyer = u64::try_from(number).unwrap();
    entry(buyer, "hold", 201, Some(&key), Some(digest), serde_json::to_value(&hold).ok())
}

fn order_body(order: Uuid, hold: Uuid, block: i64, state: &str) -> Value {
    let hold = HoldId::from_parts(stampede_contracts::BlockId::from_number(block), hold);
    json!({ "order_id": OrderId::from_uuid(order), "state": state, "hold_id": hold, "created_at": Timestamp::now(),
        "tickets": [], "timeline": [] })
}

async fn order(world: &World, number: i32, state: &str) -> Value {
    let (order, hold) = (id(world, "order", number).await, id(world, "hold", number).await);
    let mut body = order_body(order, hold, 1, state);
    let ticket = |ticket: Uuid, seat: &str, code: &str| {
        json!({ "ticket_id": TicketId::from_uuid(ticket), "order_id": OrderId::from_uuid(order),
            "show_id": stampede_contracts::ShowId::from_uuid(order), "state": "valid", "code": code,
            "seat": { "seat_id": seat, "section": "Hall", "row": "A", "number": 1 } })
    };
    body["total"] = json!({ "amount": 5000, "currency": "EUR" });
    body["order_secret"] = json!("1".repeat(64));
    body["tickets"] = json!([
        ticket(id(world, "ticket", 11).await, "b1-0", "code 1-1"),
        ticket(id(world, "ticket", 12).await, "b1-1", "code 1-2"),
    ]);
    body
}

async fn place(world: &World, number: i32, state: &str) -> Value {
    let place = LobbyTicket::from_uuid(id(world, "place", number).await);
    let show = stampede_contracts::ShowId::from_uuid(id(world, "show", 1).await);
    json!({ "lobby_ticket": place, "show_id": show, "state": state, "number": number, "ahead": 0, "eta_seconds": 0,
        "poll_after_ms": 250 })
}

#[tokio::test]
async fn what_buyers_of_a_clean_world_were_told_is_there() {
    let mut history = History::new().await;
    history.write();
    let report = history.world.verify().await;
    assert!(report.holds(), "{report}");
    let kept = &report.of(Rule::Kept).unwrap().checked;
    for expected in [(2, "holds"), (2, "orders"), (2, "tickets"), (1, "places in lobbies")] {
        assert!(kept.contains(&expected), "{expected:?}: {report}");
    }
    let same = &report.of(Rule::SameReply).unwrap().checked;
    for expected in [(2, "keys of orders"), (1, "repeated answers"), (2, "keys of holds")] {
        assert!(same.contains(&expected), "{expected:?}: {report}");
    }
}

#[tokio::test]
async fn rule_7_what_was_acknowledged_and_is_not_there_is_found() {
    let mut history = History::new().await;
    history.body("hold")["hold_id"] = json!(HoldId::new(stampede_contracts::BlockId::from_number(1)));
    history.line("hold").key = Some("another".to_owned());
    history.breaks(Rule::Kept, "was acknowledged (a.jsonl:1), and is not there").await;

    let mut history = History::new().await;
    history.body("cancel")["order_id"] = json!(OrderId::new());
    history.breaks(Rule::Kept, "was acknowledged (a.jsonl:5), and is not there").await;

    let mut history = History::new().await;
    history.body("lobby")["lobby_ticket"] = json!(LobbyTicket::new());
    history.breaks(Rule::Kept, "was acknowledged (a.jsonl:8), and is not there").await;

    let mut history = History::new().await;
    history.body("order")["tickets"][0]["ticket_id"] = json!(TicketId::new());
    history.breaks(Rule::Kept, "was given (a.jsonl:2), and is not there").await;

    let mut history = History::new().await;
    history.line("declined").key = Some("forgotten too early".to_owned());
    history.breaks(Rule::Kept, "was answered 402 (a.jsonl:4), and no order has it").await;
}

#[tokio::test]
async fn rule_7_what_is_there_and_is_another_is_found() {
    let mut history = History::new().await;
    history.line("hold").digest = Some("ff".repeat(32));
    history.breaks(Rule::Kept, "was answered (a.jsonl:1) with other words than are stored").await;

    let mut history = History::new().await;
    history.body("order")["tickets"][1]["code"] = json!("another");
    history.breaks(Rule::Kept, "is another than was given").await;

    let mut history = History::new().await;
    history.body("order")["order_secret"] = json!("2".repeat(64));
    history.breaks(Rule::Kept, "was told another secret").await;

    let mut history = History::new().await;
    history.body("order")["total"]["amount"] = json!(4_999);
    history.breaks(Rule::Kept, "was told another price").await;

    let mut history = History::new().await;
    history.body("lobby")["number"] = json!(5);
    history.breaks(Rule::Kept, "was told to be waiting with number 5").await;
}

#[tokio::test]
async fn rule_7_what_was_taken_back_is_found() {
    let mut history = History::new().await;
    history.body("cancel")["state"] = json!("confirmed");
    history
        .world
        .spoil("orders", "UPDATE orders SET cancel_requested_at = NULL WHERE state = 'cancelled'")
        .await;
    history.write();
    let report = history.world.verify().await;
    // The stored answer, what was told, and the cancellation nobody knows of.
    assert_eq!((report.broken(), report.of(Rule::Kept).unwrap().broken), (vec![Rule::Kept], 3), "{report}");

    let mut history = History::new().await;
    history.line("held").body = history.line("hold").body.clone();
    history.line("held").digest = history.line("hold").digest.clone();
    history.line("held").key = history.line("hold").key.clone();
    history.breaks(Rule::Kept, "was told to be released (a.jsonl:7), and is sold").await;
}

#[tokio::test]
async fn rule_8_same_key_other_reply_is_found() {
    let mut history = History::new().await;
    history.line("again").digest = Some("ff".repeat(32));
    history.breaks(Rule::SameReply, "key order-1 was answered 201 (a.jsonl:2) and 201 (a.jsonl:3)").await;

    let history = History::new().await;
    let how = "UPDATE orders SET reply_body = 'another' WHERE order_id = id('order', 1)";
    history.world.spoil("orders", how).await;
    history.breaks(Rule::SameReply, "and 201 with other bytes is stored").await;

    let history = History::new().await;
    let how = "UPDATE hold_request SET hold = id('hold', 6) WHERE hold = id('hold', 8)";
    history.world.spoil("inventory", how).await;
    history.breaks(Rule::SameReply, "and now leads to another").await;
}
