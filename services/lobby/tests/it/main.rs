//! The lobby with a real database and a real NATS; inventory is played by the test.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod line;

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::FutureExt;
use stampede_bus::{Bus, Responder, ResponderSettings};
use stampede_contracts::{
    BlockId, Code, SectionId, SessionId, ShowId, Timestamp,
    api::PlaceState,
    event::{BlockLayout, BlockState, LayoutPublished, LobbyRules, ShowPublished},
    header,
    inventory::{ClosePass, PassEnd},
    signed::{Pass, SigningKey},
};
use stampede_lobby::{
    app::{App, AppError},
    config::Config,
    http,
    store::{MIGRATOR, Store},
};
use stampede_postgres::is_outage;
use stampede_testkit::{Database, Nats, eventually, fresh_database};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);
/// Few enough that each has a connection of its own.
const COMING_AT_ONCE: i64 = 3;

struct Stage {
    app: App,
    store: Store,
    database: Database,
    key: SigningKey,
    bus: Bus,
    draining: CancellationToken,
    _nats: Nats,
    tasks: JoinSet<()>,
}

fn config() -> Config {
    Config {
        pass_key: SigningKey::from_seed_hex(&"07".repeat(32)).unwrap(),
        admit_every: Duration::from_millis(10),
        abandoned_after: Duration::from_secs(120),
        history: Duration::from_secs(86_400),
    }
}

impl Stage {
    async fn start() -> Self {
        let (nats, database) = (Nats::start().await, fresh_database("lobby", &MIGRATOR).await);
        let settings = stampede_bus::Settings {
            url: nats.url(),
            user: "lobby".into(),
            password: String::new(),
            service: "lobby".into(),
            instance: "lobby-1".into(),
        };
        let bus = Bus::connect(settings).await.unwrap();
        let store = Store::new(database.pool().clone());
        let draining = CancellationToken::new();
        let app = App::new(store.clone(), bus.clone(), config(), draining.clone());
        let key = config().pass_key;
        Self { app, store, database, key, bus, draining, _nats: nats, tasks: JoinSet::new() }
    }

    /// Starts the loop that calls people.
    fn call_people(&mut self) {
        let app = self.app.clone();
        self.tasks.spawn(async move { app.call_people(CancellationToken::new()).await.unwrap() });
    }

    /// A show whose sale opens `opens_in` from now, with one block of this stock.
    async fn show(&self, opens_in: Duration, slots: u32, stock: (u32, u32)) -> ShowId {
        let now = Timestamp::now();
        let show_id = ShowId::new();
        let rules = LobbyRules {
            opens_at: now - Duration::from_secs(1),
            rate_per_second: 1_000,
            slots_max: slots,
            slot_seconds: 60,
        };
        let show = ShowPublished {
            show_id,
            version: 1,
            title: "Club Night".into(),
            venue: "The Club".into(),
            starts_at: now + Duration::from_secs(3_600),
            sale_opens_at: now + opens_in,
            cancel_until: now + Duration::from_secs(3_600),
            currency: "EUR".parse().unwrap(),
            sections: vec![],
            lobby: Some(rules),
        };
        self.store.take_show(&show, &[7; 32]).await.unwrap();
        self.stock(show_id, 1, stock);
        show_id
    }

    fn stock(&self, show_id: ShowId, version: i64, (free, held): (u32, u32)) {
        let (section_id, block_id) = (SectionId::new(), BlockId::from_number(1));
        let layout = BlockLayout { block_id, section_id, shard: 0, capacity: 500, rows: vec![] };
        self.app.stock().layout(&LayoutPublished { show_id, blocks: vec![layout] });
        self.app.stock().block(&BlockState {
            show_id,
            section_id,
            block_id,
            version,
            capacity: 500,
            free,
            held,
            attached: 0,
            sold: 500 - free - held,
            blocked: 0,
            seats: None,
            as_of: Timestamp::now(),
        });
    }

    async fn state(&self, place: &stampede_contracts::api::Place, session: SessionId) -> PlaceState {
        self.app.place(place.lobby_ticket, session).await.unwrap().state
    }
}

fn code(error: &AppError) -> Option<Code> {
    match error {
        AppError::Refused(problem) => Some(problem.code),
        _ => None,
    }
}

#[tokio::test]
async fn one_place_a_session_and_nobody_elses() {
    let stage = Stage::start().await;
    let show = stage.show(Duration::ZERO, 10, (100, 0)).await;
    let (me, stranger) = (SessionId::new(), SessionId::new());
    let (first, is_new) = stage.app.join(show, me).await.unwrap();
    assert!(is_new);
    let (second, is_new) = stage.app.join(show, me).await.unwrap();
    assert_eq!((second, is_new), (first.clone(), false));
    let refused = stage.app.place(first.lobby_ticket, stranger).await.unwrap_err();
    assert_eq!(code(&refused), Some(Code::PlaceNotFound));
    assert_eq!(
        code(&stage.app.leave(first.lobby_ticket, stranger).await.unwrap_err()),
        Some(Code::PlaceNotFound)
    );
    assert_eq!(code(&stage.app.join(ShowId::new(), me).await.unwrap_err()), Some(Code::ShowNotFound));
}

#[tokio::test]
async fn a_replica_that_drains_ends_its_streams() {
    let mut stage = Stage::start().await;
    let show = stage.show(Duration::from_secs(3_600), 0, (100, 0)).await;
    let me = SessionId::new();
    let (place, _) = stage.app.join(show, me).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/lobby/{}/events", listener.local_addr().unwrap(), place.lobby_ticket);
    let router = http::router(stage.app.clone());
    stage.tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stream =
        reqwest::Client::new().get(url).header(header::SESSION, me.to_string()).send().await.unwrap();
    stage.draining.cancel();
    let events = tokio::time::timeout(PATIENCE, stream.text()).await.unwrap().unwrap();
    assert_eq!(events.matches("event: place").count(), 1, "{events}");
}

#[tokio::test]
async fn places_of_a_show_that_is_over_for_long_are_forgotten() {
    const DAY: Duration = Duration::from_secs(86_400);
    let stage = Stage::start().await;
    let (over, running) =
        (stage.show(Duration::ZERO, 10, (100, 0)).await, stage.show(Duration::ZERO, 10, (100, 0)).await);
    for show in [over, running] {
        for _ in 0..5 {
            stage.app.join(show, SessionId::new()).await.unwrap();
        }
    }
    assert_eq!(stage.store.forget_history(DAY, 3).await.unwrap(), 0);
    let pool = stage.database.pool();
    sqlx::query("UPDATE show SET starts_at = now() - interval '2 days' WHERE show_id = $1")
        .bind(over.uuid())
        .execute(pool)
        .await
        .unwrap();
    assert_eq!(stage.store.forget_history(DAY * 3, 3).await.unwrap(), 0, "not for so long");
    let mut rounds = Vec::new();
    while rounds.last() != Some(&0) {
        rounds.push(stage.store.forget_history(DAY, 3).await.unwrap());
    }
    assert_eq!(rounds, [3, 2, 1, 0], "three places, two, the mark");
    let left: Vec<(uuid::Uuid, i64)> =
        sqlx::query_as("SELECT show_id, count(*) FROM place GROUP BY show_id").fetch_all(pool).await.unwrap();
    assert_eq!(left, [(running.uuid(), 5)]);
    let history: String = sqlx::query_scalar("SELECT history FROM show WHERE show_id = $1")
        .bind(over.uuid())
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(history, "gone");
}

#[tokio::test]
async fn who_comes_early_is_drawn_and_who_comes_later_stands_behind() {
    let mut stage = Stage::start().await;
    let show = stage.show(Duration::from_secs(3_600), 0, (100, 0)).await;
    let sessions: Vec<_> = (0..20).map(|_| SessionId::new()).collect();
    let mut early = Vec::new();
    for session in &sessions {
        let (place, _) = stage.app.join(show, *session).await.unwrap();
        assert_eq!((place.state, place.number, place.ahead), (PlaceState::Early, None, None));
        early.push(place);
    }
    let before = stage.app.draw(show).await.unwrap();
    assert_eq!(before.seed, None);
    let opens = "UPDATE show SET sale_opens_at = now()";
    sqlx::query(opens).execute(stage.database.pool()).await.unwrap();
    stage.call_people();
    eventually(PATIENCE, async || stage.app.draw(show).await.unwrap().seed.is_some()).await;
    assert_eq!(stage.app.draw(show).await.unwrap().seed_hash, before.seed_hash);

    let mut numbers = HashSet::new();
    for (place, session) in early.iter().zip(&sessions) {
        let now = stage.app.place(place.lobby_ticket, *session).await.unwrap();
        assert_eq!(now.state, PlaceState::Waiting);
        numbers.insert(now.number.unwrap());
    }
    assert_eq!(numbers, (1..=20).collect());
    let (late, _) = stage.app.join(show, SessionId::new()).await.unwrap();
    assert_eq!((late.state, late.number), (PlaceState::Waiting, Some(21)));
}

#[tokio::test]
async fn people_are_called_in_order_within_the_slots_and_a_pass_is_theirs_alone() {
    let mut stage = Stage::start().await;
    let show = stage.show(Duration::ZERO, 3, (100, 0)).await;
    stage.store.draw(show).await.unwrap();
    let mut line = Vec::new();
    for _ in 0..6 {
        let session = SessionId::new();
        line.push((stage.app.join(show, session).await.unwrap().0, session));
    }
    stage.call_people();
    eventually(PATIENCE, async || stage.state(&line[2].0, line[2].1).await == PlaceState::Admitted).await;
    for (at, (place, session)) in line.iter().enumerate() {
        let now = stage.app.place(place.lobby_ticket, *session).await.unwrap();
        assert_eq!(now.state == PlaceState::Admitted, at < 3, "{now:?}");
        let Some(pass) = now.pass else { continue };
        let pass: Pass = stage.key.verifying_key().verify(&pass).unwrap();
        assert_eq!((pass.session, pass.show_id, pass.place), (*session, show, place.lobby_ticket));
    }

    // Inventory says that one pass is used up: the next in line gets the slot.
    let used = stage.store.place(line[1].0.lobby_ticket, PATIENCE).await.unwrap().unwrap().slot.unwrap();
    assert_eq!(stage.store.passes_closed(&[used.pass_id]).await.unwrap(), 1);
    eventually(PATIENCE, async || stage.state(&line[3].0, line[3].1).await == PlaceState::Admitted).await;
    assert_eq!(stage.state(&line[4].0, line[4].1).await, PlaceState::Waiting);
}

#[tokio::test]
async fn who_leaves_after_being_called_is_closed_at_inventory_first() {
    let mut stage = Stage::start().await;
    let show = stage.show(Duration::ZERO, 1, (100, 0)).await;
    stage.store.draw(show).await.unwrap();
    let (me, next) = (SessionId::new(), SessionId::new());
    let (mine, _) = stage.app.join(show, me).await.unwrap();
    let (theirs, _) = stage.app.join(show, next).await.unwrap();
    stage.call_people();
    eventually(PATIENCE, async || stage.state(&mine, me).await == PlaceState::Admitted).await;

    // Who left when nobody had called them yet, and was called before that was written.
    stage.store.leave(mine.lobby_ticket, None).await.unwrap();
    assert_eq!(stage.state(&mine, me).await, PlaceState::Admitted);

    // Nobody answers for inventory: leaving fails and the slot stays taken.
    let within = stampede_deadline::Deadline::after(Duration::from_millis(200));
    stampede_deadline::scope(within, stage.app.leave(mine.lobby_ticket, me)).await.unwrap_err();
    assert_eq!(stage.state(&mine, me).await, PlaceState::Admitted);

    let asked = Arc::new(tokio::sync::Notify::new());
    let (bus, heard) = (stage.bus.clone(), Arc::clone(&asked));
    let settings = ResponderSettings {
        subject: "rpc.inventory.*.*".into(),
        queue: "inventory".into(),
        capacity: 16,
        workers: 2,
    };
    let responder = Responder::new(bus, settings).on::<ClosePass, _, _>(move |_, _| {
        heard.notify_one();
        std::future::ready(Ok(PassEnd { closed_at: Timestamp::now(), released: None }))
    });
    stage.tasks.spawn(async move { responder.run(CancellationToken::new()).await.unwrap() });
    let left = stage.app.leave(mine.lobby_ticket, me).await.unwrap();
    assert_eq!((left.state, left.pass), (PlaceState::Left, None));
    tokio::time::timeout(PATIENCE, asked.notified()).await.unwrap();
    eventually(PATIENCE, async || stage.state(&theirs, next).await == PlaceState::Admitted).await;
    // After an ended place a new one stands at the end.
    let (again, is_new) = stage.app.join(show, me).await.unwrap();
    assert!(is_new);
    assert_eq!(again.number, Some(3));
}

#[tokio::test]
async fn a_session_that_comes_many_times_at_once_has_one_place_and_takes_one_number() {
    let stage = Stage::start().await;
    let show = stage.show(Duration::ZERO, 1, (100, 0)).await;
    stage.store.draw(show).await.unwrap();
    let (me, pool) = (SessionId::new(), stage.database.pool());
    // Nobody gets on before all have looked and found no place.
    let mut holding = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM show FOR UPDATE").execute(&mut *holding).await.unwrap();
    let join = || {
        let store = stage.store.clone();
        async move { store.join(show, me).await.unwrap() }
    };
    let joining: JoinSet<_> = (0..COMING_AT_ONCE).map(|_| join()).collect();
    line::until_waiting(pool, COMING_AT_ONCE).await;
    holding.commit().await.unwrap();
    let joins = joining.join_all().await;
    assert_eq!(joins.iter().filter(|(_, is_new)| *is_new).count(), 1);
    assert!(joins.iter().all(|(place, _)| place.ticket == joins[0].0.ticket && place.number == Some(1)));
    let (next, _) = stage.store.join(show, SessionId::new()).await.unwrap();
    assert_eq!(next.number, Some(2));
}

#[tokio::test]
async fn nobody_is_called_for_seats_in_other_hands_and_all_are_told_when_it_is_sold_out() {
    let mut stage = Stage::start().await;
    let show = stage.show(Duration::ZERO, 10, (0, 2)).await;
    stage.store.draw(show).await.unwrap();
    let me = SessionId::new();
    let (mine, _) = stage.app.join(show, me).await.unwrap();
    let stock = stage.app.stock().of(show);
    let called = stage.store.call(show, stock, PATIENCE).await.unwrap();
    assert_eq!((called.admitted.len(), called.sold_out), (0, 0));
    stage.stock(show, 2, (0, 0));
    stage.call_people();
    eventually(PATIENCE, async || stage.state(&mine, me).await == PlaceState::SoldOut).await;
}

#[tokio::test]
async fn a_slot_that_is_over_and_a_place_that_was_abandoned_make_room() {
    let stage = Stage::start().await;
    let show = stage.show(Duration::ZERO, 1, (100, 0)).await;
    stage.store.draw(show).await.unwrap();
    let sessions: Vec<_> = (0..3).map(|_| SessionId::new()).collect();
    let mut line = Vec::new();
    for session in &sessions {
        line.push(stage.app.join(show, *session).await.unwrap().0);
    }
    let plenty = stage.app.stock().of(show);
    let call = async || {
        sqlx::query("UPDATE show SET allowance = 10").execute(stage.database.pool()).await.unwrap();
        stage.store.call(show, plenty, Duration::from_secs(60)).await.unwrap()
    };
    assert_eq!(call().await.admitted.len(), 1);
    assert_eq!(call().await.admitted.len(), 0);
    // The first one's time is over, and the second has gone away without a word.
    for change in [
        line::HEARD_LONG,
        "UPDATE place SET pass_expires_at = now() - interval '2 seconds' WHERE number = 1",
        "UPDATE place SET seen_at = now() - interval '10 minutes' WHERE number = 2",
    ] {
        sqlx::query(change).execute(stage.database.pool()).await.unwrap();
    }
    let called = call().await;
    assert_eq!((called.ended, called.admitted.len()), (2, 1));
    let states = [
        stage.state(&line[0], sessions[0]).await,
        stage.state(&line[1], sessions[1]).await,
        stage.state(&line[2], sessions[2]).await,
    ];
    assert_eq!(states, [PlaceState::Expired, PlaceState::Expired, PlaceState::Admitted]);
}

#[tokio::test]
async fn an_outage_of_the_database_is_none_of_the_loops_faults() {
    let stage = Stage::start().await;
    stage.database.shut().await;
    let stop = CancellationToken::new();
    let loops = [
        stage.app.clone().call_people(stop.clone()).boxed(),
        stage.app.clone().count_places(stop.clone()).boxed(),
        stage.app.clone().forget(stop).boxed(),
    ];
    for error in futures::future::join_all(loops).await {
        let error = error.unwrap_err();
        assert!(is_outage(error.as_ref()), "{error}");
    }
    stage.database.open().await;
}
