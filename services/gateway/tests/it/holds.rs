//! Holds over NATS.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use stampede_bus::{Context, Responder};
use stampede_contracts::event::{BlockLayout, LayoutPublished};
use stampede_contracts::inventory::{
    GetHold, Hold, HoldAnswer, HoldOf, HoldState, HoldView, PlaceHold, ReleaseHold, SeatLabel, ShowFacts,
    Want,
};
use stampede_contracts::topology::LAYOUT;
use stampede_contracts::{BlockId, Class, Code, HoldId, Money, Problem, SectionId, ShowId, Timestamp};
use stampede_idempotency::Fingerprinter;
use stampede_testkit::eventually;

use crate::support::{PATIENCE, Stage, problem};

/// What inventory was asked, and on which shard's subject.
type Asked = Arc<Mutex<Vec<(Option<String>, PlaceHold)>>>;

/// Answers each key with one hold, which has moved on when it is asked for again.
fn holding(asked: Asked) -> impl FnOnce(Responder) -> Responder {
    let given = Arc::new(Mutex::new(HashMap::<String, HoldView>::new()));
    move |responder| {
        responder.on::<Hold, _, _>(move |wish, Context { shard, .. }| {
            asked.lock().unwrap().push((shard, wish.clone()));
            let mut given = given.lock().unwrap();
            let hold = given.entry(wish.key.clone()).or_insert_with(|| view(&wish)).clone();
            given.get_mut(&wish.key).unwrap().state = HoldState::Attached;
            std::future::ready(Ok(HoldAnswer::Held(Box::new(hold))))
        })
    }
}

fn view(wish: &PlaceHold) -> HoldView {
    let block = BlockId::from_number(1042);
    HoldView {
        hold_id: HoldId::new(block),
        session: wish.session,
        show_id: wish.show,
        section_id: SectionId::new(),
        quantity: 1,
        seats: vec![SeatLabel { seat_id: None, section: "Lawn".to_owned(), row: None, number: None }],
        total: Money::try_new(4_500, "EUR".parse().unwrap()).unwrap(),
        expires_at: Timestamp::now() + Duration::from_secs(300),
        state: HoldState::Held,
        order_id: None,
        show: ShowFacts {
            title: "Night".to_owned(),
            venue: "Club".to_owned(),
            starts_at: Timestamp::now(),
            cancel_until: Timestamp::now(),
        },
    }
}

fn hold(stage: &Stage, token: &str, show: ShowId, key: &str) -> RequestBuilder {
    stage.post(&format!("/v1/shows/{show}/holds")).bearer_auth(token).header("idempotency-key", key)
}

fn best() -> Value {
    json!({"section": SectionId::new(), "quantity": 1})
}

#[tokio::test]
async fn the_same_key_brings_the_same_bytes() {
    let both = format!("{},{}", "c3".repeat(32), "b2".repeat(32));
    let stage = Stage::start_with(&[("FINGERPRINT_KEY", &both)]).await;
    let asked = Asked::default();
    stage.inventory(holding(Arc::clone(&asked))).await;
    let (token, show, body) = (stage.session().await, ShowId::new(), best());
    let first = hold(&stage, &token, show, "\"k-1\"").json(&body).send().await.unwrap();
    assert_eq!(first.status(), StatusCode::CREATED);
    assert_eq!(first.headers()["content-type"], "application/json");
    let location = first.headers()["location"].to_str().unwrap().to_owned();
    let first = first.bytes().await.unwrap();
    let shown: Value = serde_json::from_slice(&first).unwrap();
    assert_eq!(location, format!("/v1/holds/{}", shown["hold_id"].as_str().unwrap()));
    assert_eq!((&shown["state"], &shown["total"]["amount"]), (&json!("held"), &json!(4_500)));
    assert!(shown.get("session").is_none() && shown.get("order_id").is_none());

    let again = hold(&stage, &token, show, "k-1").json(&body).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::CREATED);
    assert_eq!(again.bytes().await.unwrap(), first, "though the hold has been attached since");

    let asked = asked.lock().unwrap();
    let [(shard, one), (_, two)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(shard.as_deref(), Some("any"));
    assert_eq!((one.key.as_str(), &one.fingerprint), ("k-1", &two.fingerprint));
    assert_eq!((one.show, one.block, &one.pass), (show, None, &None));
    let path = format!("/v1/shows/{show}/holds");
    let by = |key: u8| {
        let fingerprint =
            Fingerprinter::new(&[key; 32]).fingerprint(&[path.as_bytes(), body.to_string().as_bytes()]);
        fingerprint.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    assert_eq!(
        (&one.fingerprint, &one.other_fingerprints),
        (&by(0xc3), &vec![by(0xb2)]),
        "one is being replaced"
    );
}

#[tokio::test]
async fn another_show_and_another_body_have_another_fingerprint() {
    let stage = Stage::start().await;
    let asked = Asked::default();
    stage.inventory(holding(Arc::clone(&asked))).await;
    let (token, show, body) = (stage.session().await, ShowId::new(), best().to_string());
    let spaced = body.replace(':', ": ");
    for (show, body) in [(show, &body), (ShowId::new(), &body), (show, &spaced)] {
        let request =
            hold(&stage, &token, show, "k").header("content-type", "application/json").body(body.clone());
        assert_eq!(request.send().await.unwrap().status(), StatusCode::CREATED);
    }
    let mut prints: Vec<_> = asked.lock().unwrap().iter().map(|(_, wish)| wish.fingerprint.clone()).collect();
    prints.sort();
    prints.dedup();
    assert_eq!(prints.len(), 3);
}

#[tokio::test]
async fn chosen_seats_go_to_the_shard_that_the_layout_names() {
    let stage = Stage::start().await;
    let asked = Asked::default();
    stage.inventory(holding(Arc::clone(&asked))).await;
    let (token, show) = (stage.session().await, ShowId::new());
    let blocks = vec![BlockLayout {
        block_id: BlockId::from_number(7),
        section_id: SectionId::new(),
        shard: 42,
        capacity: 10,
        rows: Vec::new(),
    }];
    let layout = serde_json::to_vec(&LayoutPublished { show_id: show, blocks }).unwrap();
    stage.operator.kv_put(LAYOUT, &show.to_string(), layout.into()).await.unwrap();
    let mut count = 0;
    let arrives_there = async || {
        count += 1;
        let request = hold(&stage, &token, show, &format!("k-{count}")).header("lobby-pass", "pass1.a.b.c");
        let response = request.json(&json!({"seats": ["b7-0", "b7-1"]})).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        asked.lock().unwrap().last().unwrap().0.as_deref() == Some("42")
    };
    eventually(PATIENCE, arrives_there).await;
    let (_, wish) = asked.lock().unwrap().last().cloned().unwrap();
    assert_eq!((wish.block, wish.pass.as_deref()), (Some(BlockId::from_number(7)), Some("pass1.a.b.c")));
    assert!(matches!(wish.want, Want::Seats(seats) if seats.len() == 2));
    let unknown = hold(&stage, &token, show, "other").json(&json!({"seats": ["b8-0"]})).send().await.unwrap();
    assert_eq!(unknown.status(), StatusCode::CREATED);
    assert_eq!(asked.lock().unwrap().last().unwrap().0.as_deref(), Some("any"));
    let metrics = stage.metrics().await;
    assert!(!metrics.contains("violations"), "the rights of a real run suffice: {metrics}");
}

#[tokio::test]
async fn a_hold_is_read_and_released_by_its_session() {
    let stage = Stage::start().await;
    let token = stage.session().await;
    let mine = HoldId::new(BlockId::from_number(9));
    let find = move |of: HoldOf| {
        let wish = PlaceHold {
            session: of.session,
            key: String::new(),
            fingerprint: String::new(),
            other_fingerprints: Vec::new(),
            show: ShowId::new(),
            want: Want::Seats(Vec::new()),
            pass: None,
            block: None,
        };
        let found = HoldView { hold_id: of.hold_id, ..view(&wish) };
        std::future::ready(if of.hold_id == mine { Ok(found) } else { Err(Problem::new(Code::HoldNotFound)) })
    };
    stage
        .inventory(|responder| {
            responder
                .on::<GetHold, _, _>(move |of, _| find(of))
                .on::<ReleaseHold, _, _>(move |of, _| find(of))
        })
        .await;
    let path = format!("/v1/holds/{mine}");
    let read = stage.get(&path).bearer_auth(&token).send().await.unwrap();
    assert_eq!(read.status(), StatusCode::OK);
    assert_eq!(read.json::<Value>().await.unwrap()["hold_id"], json!(mine));
    let release = stage.request(reqwest::Method::DELETE, &path).bearer_auth(&token).send().await.unwrap();
    assert_eq!(release.status(), StatusCode::NO_CONTENT);
    assert_eq!(release.bytes().await.unwrap(), "");
    let other = format!("/v1/holds/{}", HoldId::new(BlockId::from_number(9)));
    let unknown = stage.get(&other).bearer_auth(&token).send().await.unwrap();
    assert_eq!(problem(unknown).await.code, Code::HoldNotFound);
}

#[tokio::test]
async fn refusals_come_back_as_they_are() {
    let stage = Stage::start().await;
    let first = HoldId::new(BlockId::from_number(3));
    stage
        .inventory(move |responder| {
            responder.on::<Hold, _, _>(move |wish: PlaceHold, _| {
                std::future::ready(match wish.key.as_str() {
                    "full" => Ok(HoldAnswer::Full { block: first.block(), version: 3, largest: 0 }),
                    "second" => Err(Problem::new(Code::HoldExists).hold_id(first)),
                    _ => Err(Problem::new(Code::PassInvalid)),
                })
            })
        })
        .await;
    let (token, show) = (stage.session().await, ShowId::new());
    let ask =
        async |key: &str| problem(hold(&stage, &token, show, key).json(&best()).send().await.unwrap()).await;
    assert_eq!(ask("full").await.code, Code::SeatsTaken);
    assert_eq!(ask("second").await.hold_id, Some(first));
    assert_eq!(ask("pass").await.code, Code::PassInvalid);
}

#[tokio::test]
async fn the_same_key_is_asked_again_inside_the_deadline() {
    let stage = Stage::start().await;
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    stage
        .inventory(move |responder| {
            responder.on::<Hold, _, _>(move |wish: PlaceHold, _| {
                let attempt = counted.fetch_add(1, Ordering::Relaxed);
                std::future::ready(match attempt {
                    0..3 => Err(Problem::new(Code::Busy)),
                    _ => Ok(HoldAnswer::Held(Box::new(view(&wish)))),
                })
            })
        })
        .await;
    let (token, show) = (stage.session().await, ShowId::new());
    let held = hold(&stage, &token, show, "k").json(&best()).send().await.unwrap();
    assert_eq!(held.status(), StatusCode::CREATED);
    assert_eq!(tries.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn without_inventory_it_is_unavailable_or_late() {
    let stage = Stage::start().await;
    let (token, show) = (stage.session().await, ShowId::new());
    let request = hold(&stage, &token, show, "k").header("deadline-ms", "200").json(&best());
    let response = request.send().await.unwrap();
    assert!([503, 504].contains(&response.status().as_u16()));
    problem(response).await;
}

#[tokio::test]
async fn a_client_lowers_the_class_of_its_hold_and_never_raises_it() {
    let stage = Stage::start().await;
    let classes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&classes);
    stage
        .inventory(move |responder| {
            responder.on::<Hold, _, _>(move |_: PlaceHold, Context { class, .. }| {
                seen.lock().unwrap().push(class);
                std::future::ready(Err(Problem::new(Code::SeatsTaken)))
            })
        })
        .await;
    let (token, show) = (stage.session().await, ShowId::new());
    for wish in ["u=0", "u=4", "u=7"] {
        hold(&stage, &token, show, "k").header("priority", wish).json(&best()).send().await.unwrap();
    }
    assert_eq!(*classes.lock().unwrap(), [Class::Hold, Class::Join, Class::Browse]);
}
