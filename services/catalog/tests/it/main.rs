//! The catalog with a real database and a real NATS.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use reqwest::StatusCode;
use serde_json::{Value, json};
use stampede_bus::{Bus, Message};
use stampede_catalog::{
    app::App,
    config::OUTBOX_PARTITIONS,
    events, http,
    store::{Cursor, MIGRATOR, Store},
};
use stampede_contracts::{
    BlockId, SectionId, ShowId, Timestamp,
    event::{BlockLayout, BlockState, LayoutPublished, RowSpan},
    topology::{EVT_CATALOG, EVT_INVENTORY},
};
use stampede_outbox::{Outbox, Relay, RelaySettings};
use stampede_service::{HttpLimits, stack};
use stampede_testkit::{Database, Nats, eventually, fresh_database};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

/// A catalog that is served, with everything it runs in the background.
struct Stage {
    nats: Nats,
    bus: Bus,
    app: App,
    base: String,
    http: reqwest::Client,
    database: Database,
    _tasks: JoinSet<()>,
}

impl Stage {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (nats, database) = (Nats::start().await, fresh_database("catalog", &MIGRATOR).await);
        let settings = stampede_bus::Settings {
            url: nats.url(),
            user: "catalog".into(),
            password: String::new(),
            service: "catalog".into(),
            instance: "catalog-1".into(),
        };
        let bus = Bus::connect(settings).await.unwrap();
        stampede_testkit::provision(bus.jetstream()).await;
        let outbox = Outbox::new(database.pool().clone(), OUTBOX_PARTITIONS);
        let app = App::new(Store::new(database.pool().clone(), outbox.clone()));

        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        let relay = Relay::new(outbox, bus.clone(), RelaySettings::default());
        let (copies, store, on) = (Arc::clone(&app.copies), app.store.clone(), bus.clone());
        let until = stop.clone();
        tasks.spawn(async move {
            let _ = tokio::join!(
                relay.run(until.clone()),
                events::follow(on.clone(), copies, until.clone()),
                events::watch_generation(on, store, until)
            );
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = stack(http::router(app.clone()), HttpLimits::internal());
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { nats, bus, app, base, http: reqwest::Client::new(), database, _tasks: tasks }
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.http.get(format!("{}{path}", self.base)).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn post(&self, body: &Value) -> (StatusCode, Value) {
        let response = self.http.post(format!("{}/v1/ops/shows", self.base)).json(body).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn published(&self) -> u64 {
        let stream = self.bus.jetstream().get_stream(EVT_CATALOG).await;
        stream.map_or(0, |stream| stream.cached_info().state.messages)
    }
}

fn show(slug: &str) -> Value {
    json!({
        "slug": slug,
        "title": "Club Night",
        "venue": { "name": "The Club", "city": "Utrecht" },
        "starts_at": "2040-01-31T20:00:00Z",
        "currency": "EUR",
        "sections": [{ "name": "Floor", "price": 4500, "seating": { "rows": [{ "label": "A", "seats": 4 }] } }]
    })
}

#[tokio::test]
async fn a_show_is_made_once_by_its_slug_and_published() {
    let stage = Stage::start().await;
    let (status, first) = stage.post(&show("club")).await;
    assert_eq!(status, StatusCode::CREATED, "{first}");
    assert_eq!(stage.post(&show("club")).await, (StatusCode::OK, first.clone()));

    let mut other = show("club");
    other["title"] = json!("Another Night");
    let (status, problem) = stage.post(&other).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("show_exists")));
    assert_eq!(
        stage.get(&format!("/v1/shows/{}", first["show_id"].as_str().unwrap())).await,
        (StatusCode::OK, first)
    );
    eventually(PATIENCE, async || stage.published().await == 1).await;
}

/// A show of five thousand rows, in a hundred sections.
fn largest() -> Value {
    let rows = |section| {
        let row = move |nth| json!({ "label": format!("{nth:02}{section:02}-{}", "\u{1f39f}".repeat(11)), "seats": 40 });
        (0..50).map(row).collect::<Vec<_>>()
    };
    let section = |nth| json!({ "name": format!("{nth}"), "price": 4500, "seating": { "rows": rows(nth) } });
    let mut show = show("stadium");
    show["sections"] = (0..100).map(section).collect();
    show
}

#[tokio::test]
async fn the_largest_show_is_published_and_one_row_more_is_refused() {
    let stage = Stage::start().await;
    let mut larger = largest();
    larger["sections"][0]["seating"]["rows"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "label": "Z", "seats": 1 }));
    let (status, problem) = stage.post(&larger).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("contradiction")));
    assert!(problem["detail"].as_str().unwrap().contains("at most 5000 rows"), "{problem}");
    let (status, problem) = stage.post(&largest()).await;
    assert_eq!(status, StatusCode::CREATED, "{problem}");
    eventually(PATIENCE, async || stage.published().await == 1).await;
}

#[tokio::test]
async fn a_list_comes_in_pages_without_gaps() {
    let stage = Stage::start().await;
    for number in 0..5 {
        assert_eq!(stage.post(&show(&format!("show-{number}"))).await.0, StatusCode::CREATED);
    }
    let (mut path, mut slugs) = ("/v1/shows?limit=2".to_owned(), Vec::new());
    loop {
        let (status, page) = stage.get(&path).await;
        assert_eq!(status, StatusCode::OK);
        slugs.extend(
            page["items"].as_array().unwrap().iter().map(|show| show["slug"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/shows?limit=2&cursor={cursor}");
    }
    slugs.sort();
    assert_eq!(slugs, ["show-0", "show-1", "show-2", "show-3", "show-4"]);
}

#[tokio::test]
async fn shows_to_come_are_published_again_although_nothing_changed() {
    let stage = Stage::start().await;
    let now = Timestamp::now();
    for show in [show("one"), show("two"), show("three")] {
        assert_eq!(stage.post(&show).await.0, StatusCode::CREATED);
    }
    eventually(PATIENCE, async || stage.published().await == 3).await;
    // Messages were lost, and the generation is the same.
    stage.bus.jetstream().get_stream(EVT_CATALOG).await.unwrap().purge().await.unwrap();
    let mut rounds = 0;
    let mut behind = Some(Cursor { starts_at: now, show_id: ShowId::from_uuid(uuid::Uuid::nil()) });
    while let Some(after) = behind {
        behind = stage.app.store.publish_again(after, 2).await.unwrap();
        rounds += 1;
    }
    assert_eq!(rounds, 2);
    eventually(PATIENCE, async || stage.published().await == 3).await;
}

#[tokio::test]
async fn a_show_that_cannot_be_read_hides_no_other_and_keeps_none_from_being_published_again() {
    let stage = Stage::start().await;
    let now = Timestamp::now();
    for slug in ["one", "two", "three", "four"] {
        assert_eq!(stage.post(&show(slug)).await.0, StatusCode::CREATED);
    }
    eventually(PATIENCE, async || stage.published().await == 4).await;
    for spoil in [
        r#"UPDATE show SET lobby = '"?"' WHERE slug = 'one'"#,
        r#"UPDATE section SET seating = '"?"' FROM show WHERE slug = 'three' AND section.show_id = show.show_id"#,
    ] {
        sqlx::query(spoil).execute(stage.database.pool()).await.unwrap();
    }
    let (status, page) = stage.get("/v1/shows").await;
    let slugs: Vec<_> = page["items"].as_array().unwrap().iter().map(|show| show["slug"].as_str()).collect();
    assert_eq!((status, slugs), (StatusCode::OK, vec![Some("two"), Some("four")]));

    stage.bus.jetstream().get_stream(EVT_CATALOG).await.unwrap().purge().await.unwrap();
    let mut behind = Some(Cursor { starts_at: now, show_id: ShowId::from_uuid(uuid::Uuid::nil()) });
    while let Some(after) = behind {
        behind = stage.app.store.publish_again(after, 1).await.unwrap();
    }
    eventually(PATIENCE, async || stage.published().await == 2).await;
}

#[tokio::test]
async fn bad_requests_are_named() {
    let stage = Stage::start().await;
    let cases = [
        ("/v1/shows?limit=0", 400, "invalid_parameter"),
        ("/v1/shows?limit=-1", 400, "invalid_parameter"),
        ("/v1/shows?limit=101", 400, "invalid_parameter"),
        ("/v1/shows?cursor=zzz", 400, "invalid_parameter"),
        ("/v1/shows?cursor=9223372036854775807.shw_0", 400, "invalid_parameter"),
        ("/v1/shows?cursor=-300000000000000.shw_00000000000000000000000000000000", 400, "invalid_parameter"),
        ("/v1/shows?cursor=-62167219200001.shw_00000000000000000000000000000000", 400, "invalid_parameter"),
        ("/v1/shows?cursor=253402300800000.shw_00000000000000000000000000000000", 400, "invalid_parameter"),
        ("/v1/shows/shw_0", 404, ""),
        ("/v1/shows/shw_00000000000000000000000000000000", 404, "show_not_found"),
    ];
    for (path, status, code) in cases {
        let (got, problem) = stage.get(path).await;
        assert!((400..500).contains(&got.as_u16()), "{path}: {got} {problem}");
        if !code.is_empty() {
            assert_eq!((got.as_u16(), problem["code"].as_str()), (status, Some(code)), "{path}");
        }
    }
    let mut bad = show("bad");
    bad["sections"][0]["price"] = json!(-1);
    let (status, problem) = stage.post(&bad).await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (422, Some("validation_failed")));
    bad["sections"] = json!("many");
    assert_eq!(stage.post(&bad).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn availability_follows_inventory_and_survives_the_loss_of_the_stream() {
    let mut stage = Stage::start().await;
    let (_, made) = stage.post(&show("club")).await;
    let show_id: ShowId = made["show_id"].as_str().unwrap().parse().unwrap();
    let section_id: SectionId = made["sections"][0]["section_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(made["sections"][0].get("availability"), None);

    let block_id = BlockId::from_number(1);
    let rows = vec![RowSpan { label: "A".into(), first_number: 1, seats: 4 }];
    let layout = BlockLayout { block_id, section_id, shard: 3, capacity: 4, rows };
    let layout = LayoutPublished { show_id, blocks: vec![layout] };
    let block = |version, seats: &str| BlockState {
        show_id,
        section_id,
        block_id,
        version,
        capacity: 4,
        free: seats.matches('f').count() as u32,
        held: seats.matches('h').count() as u32,
        attached: 0,
        sold: seats.matches('s').count() as u32,
        blocked: 0,
        seats: Some(seats.to_owned()),
        as_of: Timestamp::now(),
    };
    let messages = [
        Message::new(&layout, "l1").unwrap(),
        Message::new(&block(1, "ffff"), "b1").unwrap(),
        Message::new(&block(2, "shff"), "b2").unwrap(),
    ];
    for published in stage.bus.publish_all(&messages).await {
        published.unwrap();
    }
    let expected = json!({ "capacity": 4, "free": 2, "held": 1, "sold": 1 });
    eventually(PATIENCE, async || {
        stage.app.copies.section(show_id, section_id).is_some_and(|now| now.free == 2)
    })
    .await;
    eventually(PATIENCE, async || stage.app.copies.as_of(show_id).is_some()).await;
    let (_, show) = stage.get(&format!("/v1/shows/{show_id}")).await;
    assert_eq!(show["sections"][0]["availability"], expected);
    let (_, map) = stage.get(&format!("/v1/shows/{show_id}/seats?section={section_id}")).await;
    assert_eq!(map["seats"][0], json!({ "seat_id": "b1-0", "row": "A", "number": 1, "state": "sold" }));
    assert!(map["as_of"].is_string());

    // The store is gone: the copy stays, and the shows are published again into the new stream.
    stage.nats.lose_store().await;
    eventually(PATIENCE, async || stage.bus.is_connected()).await;
    stampede_testkit::provision(stage.bus.jetstream()).await;
    eventually(PATIENCE, async || stage.published().await == 1).await;
    assert_eq!(stage.app.copies.section(show_id, section_id).map(|now| now.free), Some(2));
}

#[tokio::test]
async fn what_is_shown_grows_old_while_its_stream_is_missing_although_nats_is_there() {
    let stage = Stage::start().await;
    let (show, other) = (ShowId::new(), ShowId::new());
    let publish = async |show_id| {
        let message = Message::new(&LayoutPublished { show_id, blocks: vec![] }, ShowId::new().to_string());
        stage.bus.publish(&message.unwrap()).await.unwrap();
    };
    let as_of = |show| stage.app.copies.as_of(show);
    let is_newer_than = async |show, moment: Option<Timestamp>| {
        eventually(PATIENCE, async || as_of(show).is_some() && as_of(show) > moment).await;
    };
    publish(show).await;
    is_newer_than(show, None).await;
    is_newer_than(show, as_of(show)).await;

    let client = stage.nats.client().await;
    let mut lookups = client.subscribe(format!("$JS.API.STREAM.INFO.{EVT_INVENTORY}")).await.unwrap();
    client.flush().await.unwrap();
    let mut looked_up = async || timeout(PATIENCE, lookups.next()).await.unwrap().unwrap();
    stage.bus.jetstream().delete_stream(EVT_INVENTORY).await.unwrap();
    looked_up().await;
    let gone = Timestamp::now();
    for _again in 0..3 {
        looked_up().await;
    }
    assert!(stage.bus.is_connected());
    assert!(as_of(show) <= Some(gone), "there may be something newer");

    // A new stream does not contain a show until that is published again.
    stampede_testkit::provision(stage.bus.jetstream()).await;
    publish(other).await;
    is_newer_than(other, Some(gone)).await;
    assert!(as_of(show) <= Some(gone));
    publish(show).await;
    is_newer_than(show, Some(gone)).await;
}
