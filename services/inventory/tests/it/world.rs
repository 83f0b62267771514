//! A server, a database, replicas of the service, and those who talk to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{kv, stream};
use sqlx::PgPool;
use stampede_bus::{Bus, CallError, Message};
use stampede_contracts::event::{
    BlockState, LayoutPublished, LobbyRules, Row, Seating, SectionPlan, ShowPublished,
};
use stampede_contracts::inventory::{
    Attach, AttachHold, ClosePass, ClosePassOf, ConfirmHold, DetachHold, FreeHold, GetHold, Hold, HoldAnswer,
    HoldOf, HoldView, OfOrder, PassEnd, PlaceHold, ReleaseHold, Want,
};
use stampede_contracts::signed::{Pass, SigningKey};
use stampede_contracts::topology::{
    ADVISORIES, BUCKETS, CONSUMERS, EVT_INVENTORY, LAYOUT, STREAMS, User, advisory_consumer,
    advisory_subject, users,
};
use stampede_contracts::{
    BlockId, Function, HoldId, LobbyTicket, Money, OrderId, PassId, Problem, SeatId, SectionId, SessionId,
    ShowId, StepId, Timestamp,
};
use stampede_inventory::app;
use stampede_inventory::inventory::Inventory;
use stampede_service::{Command, Env, Node};
use stampede_testkit::{Database, Nats, eventually, fresh_database};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Long enough for a busy machine; nothing that succeeds waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const MINUTE: Duration = Duration::from_secs(60);

/// One replica of the service. It ends when this value is dropped.
pub struct Replica {
    pub inventory: Inventory,
    draining: CancellationToken,
    ended: Option<JoinHandle<std::process::ExitCode>>,
}

impl Replica {
    /// Ends it as SIGTERM does.
    pub async fn end(mut self) {
        self.draining.cancel();
        if let Some(ended) = self.ended.take() {
            assert_eq!(ended.await.unwrap(), std::process::ExitCode::SUCCESS);
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.draining.cancel();
    }
}

pub struct World {
    pub nats: Nats,
    pub database: Database,
    pub operator: Bus,
    pub gateway: Bus,
    pub orders: Bus,
    pub lobby: Bus,
    pub key: SigningKey,
    ahead_ms: Arc<AtomicI64>,
    env: Vec<(String, String)>,
}

impl World {
    /// Everything but a replica.
    pub async fn new() -> Self {
        let nats = Nats::start_with_config(&server_config()).await;
        let operator = connect(&nats, "operator").await;
        provision(&operator).await;
        Self {
            gateway: connect(&nats, "gateway").await,
            orders: connect(&nats, "orders").await,
            lobby: connect(&nats, "lobby").await,
            operator,
            database: fresh_database("inventory", &app::MIGRATOR).await,
            nats,
            key: SigningKey::from_seed_hex(&"07".repeat(32)).unwrap(),
            ahead_ms: Arc::default(),
            env: Vec::new(),
        }
    }

    /// With one replica.
    pub async fn with_replica() -> (Self, Replica) {
        let world = Self::new().await;
        let replica = world.replica().await;
        (world, replica)
    }

    pub fn set(&mut self, key: &str, value: &str) {
        self.env.push((key.to_owned(), value.to_owned()));
    }

    pub async fn replica(&self) -> Replica {
        let own = [
            ("DATABASE_URL", self.database.url()),
            ("NATS_URL", self.nats.url()),
            ("NATS_PASSWORD", "inventory".to_owned()),
            ("PASS_PUBLIC_KEY", self.key.verifying_key().to_hex()),
            ("LOG_FORMAT", "text".to_owned()),
            ("RUST_LOG", "warn".to_owned()),
        ];
        let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
        let env = Env::from_pairs(own.chain(self.env.clone()));
        let node = Node::with_env("inventory", "test", env, Command::Serve).unwrap();
        let ahead = Arc::clone(&self.ahead_ms);
        let clock = Arc::new(move || shifted(ahead.load(Ordering::SeqCst)));
        let inventory = app::start(&node, clock).await.unwrap();
        let draining = node.draining();
        let replica = Replica { inventory, draining, ended: Some(tokio::spawn(node.idle())) };
        // An answer, whichever, says that it listens.
        let nobody = HoldOf { hold_id: HoldId::new(BlockId::from_number(1)), session: SessionId::new() };
        let call = || self.call::<GetHold>(&self.gateway, &nobody);
        eventually(PATIENCE, async || code(call().await) == "hold_not_found").await;
        replica
    }

    /// What the replicas take for now.
    pub fn now(&self) -> Timestamp {
        shifted(self.ahead_ms.load(Ordering::SeqCst))
    }

    /// Lets time pass for all replicas.
    pub fn advance(&self, time: Duration) {
        self.ahead_ms.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub fn pool(&self) -> &PgPool {
        self.database.pool()
    }

    /// A show on sale with these sections.
    pub fn show(&self, sections: &[Seating]) -> ShowPublished {
        let now = self.now();
        let plan = |(nth, seating): (usize, &Seating)| SectionPlan {
            section_id: SectionId::new(),
            name: format!("Section {nth}"),
            price: Money::try_new(4_500, "EUR".parse().unwrap()).unwrap(),
            seating: seating.clone(),
        };
        ShowPublished {
            show_id: ShowId::new(),
            version: 1,
            title: "The Show".to_owned(),
            venue: "The Hall".to_owned(),
            starts_at: now + MINUTE * 600,
            sale_opens_at: now - MINUTE,
            cancel_until: now + MINUTE * 500,
            currency: "EUR".parse().unwrap(),
            sections: sections.iter().enumerate().map(plan).collect(),
            lobby: None,
        }
    }

    /// A show that sells to holders of a pass only.
    pub fn show_with_lobby(&self, sections: &[Seating]) -> ShowPublished {
        let lobby = LobbyRules {
            opens_at: self.now() - MINUTE,
            rate_per_second: 10,
            slots_max: 10,
            slot_seconds: 60,
        };
        ShowPublished { lobby: Some(lobby), ..self.show(sections) }
    }

    /// Publishes a show as catalog does.
    pub async fn publish(&self, show: &ShowPublished) {
        let message = Message::new(show, Uuid::now_v7().to_string()).unwrap();
        self.operator.publish(&message).await.unwrap();
    }

    /// Publishes a new show, and waits until its layout is known.
    pub async fn open(&self, show: &ShowPublished) -> LayoutPublished {
        self.publish(show).await;
        eventually(PATIENCE, async || self.layout(show.show_id).await.is_some()).await;
        self.layout(show.show_id).await.unwrap()
    }

    pub async fn layout(&self, show: ShowId) -> Option<LayoutPublished> {
        let value = self.gateway.kv_get(LAYOUT, &show.to_string()).await.unwrap()?;
        Some(serde_json::from_slice(&value).unwrap())
    }

    /// Opens a show with one section.
    pub async fn open_section(&self, seating: Seating) -> (ShowPublished, LayoutPublished) {
        let show = self.show(&[seating]);
        let layout = self.open(&show).await;
        (show, layout)
    }

    /// The last message of a block in its stream.
    pub async fn published(&self, show: ShowId, block: BlockId) -> Option<BlockState> {
        let stream = self.operator.jetstream().get_stream(EVT_INVENTORY).await.ok()?;
        let subject = format!("evt.inventory.block.v1.{show}.{block}");
        let message = stream.get_last_raw_message_by_subject(&subject).await.ok()?;
        Some(serde_json::from_slice(&message.payload).unwrap())
    }

    pub async fn call<F: Function>(&self, bus: &Bus, request: &F::Request) -> Result<F::Reply, Problem> {
        let subject = format!("rpc.inventory.any.{}", F::NAME);
        bus.call::<F>(subject, request).await.map_err(|error| match error {
            CallError::Refused(problem) => problem,
            error => Problem::from(error.clone()).detail(error.to_string()),
        })
    }

    pub async fn hold(&self, request: &PlaceHold) -> Result<HoldView, Problem> {
        match self.call::<Hold>(&self.gateway, request).await? {
            HoldAnswer::Held(view) => Ok(*view),
            full @ HoldAnswer::Full { .. } => panic!("{full:?} on `any`"),
        }
    }

    pub async fn get(&self, hold: &HoldView) -> Result<HoldView, Problem> {
        let of = HoldOf { hold_id: hold.hold_id, session: hold.session };
        self.call::<GetHold>(&self.gateway, &of).await
    }

    pub async fn release(&self, hold: &HoldView) -> Result<HoldView, Problem> {
        let of = HoldOf { hold_id: hold.hold_id, session: hold.session };
        self.call::<ReleaseHold>(&self.gateway, &of).await
    }

    pub async fn attach(&self, attach: &Attach) -> Result<HoldView, Problem> {
        self.call::<AttachHold>(&self.orders, attach).await
    }

    pub async fn detach(&self, of: &OfOrder) -> Result<HoldView, Problem> {
        self.call::<DetachHold>(&self.orders, of).await
    }

    pub async fn confirm(&self, of: &OfOrder) -> Result<HoldView, Problem> {
        self.call::<ConfirmHold>(&self.orders, of).await
    }

    pub async fn free(&self, of: &OfOrder) -> Result<HoldView, Problem> {
        self.call::<FreeHold>(&self.orders, of).await
    }

    pub async fn close_pass(&self, of: &ClosePassOf) -> Result<PassEnd, Problem> {
        self.call::<ClosePass>(&self.lobby, of).await
    }

    /// An attach for a new order that is decided within 15 minutes.
    pub fn attach_of(&self, hold: &HoldView) -> Attach {
        Attach {
            hold_id: hold.hold_id,
            session: hold.session,
            order_id: OrderId::new(),
            step: StepId::new(),
            decide_by: self.now() + MINUTE * 15,
        }
    }

    /// A pass as the lobby gives it.
    pub fn pass(&self, session: SessionId, show: ShowId) -> Pass {
        Pass {
            pass_id: PassId::new(),
            show_id: show,
            session,
            place: LobbyTicket::new(),
            expires_at: self.now() + MINUTE,
        }
    }

    /// Checks what must hold in the database whatever happened.
    pub async fn check(&self) {
        for (name, sql) in INVARIANTS {
            let violations: Vec<String> = sqlx::query_scalar(*sql).fetch_all(self.pool()).await.unwrap();
            assert!(violations.is_empty(), "{name}: {violations:?}");
        }
        for bus in [&self.gateway, &self.orders, &self.lobby] {
            assert_eq!(bus.violations(), 0);
        }
    }

    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.pool()).await.unwrap()
    }
}

/// Each finds violations.
const INVARIANTS: &[(&str, &str)] = &[
    (
        "counts and letters agree",
        "SELECT b.id::text FROM block b, LATERAL (
             SELECT count(*) FILTER (WHERE l = 'f') f, count(*) FILTER (WHERE l = 'h') h,
                    count(*) FILTER (WHERE l = 'a') a, count(*) FILTER (WHERE l = 's') s
             FROM unnest(string_to_array(b.seats, NULL)) l) n
         WHERE b.seats IS NOT NULL AND (b.free, b.held, b.attached, b.sold) <> (n.f, n.h, n.a, n.s)",
    ),
    (
        "every seat of a hold has the hold's letter",
        "SELECT h.id::text || ' ' || s FROM hold h JOIN block b ON b.id = h.block, unnest(h.seats) s
         WHERE h.state <> 'freed' AND substr(b.seats, s + 1, 1) <> left(h.state, 1)",
    ),
    (
        "no seat is in two holds",
        "SELECT block || ' ' || s FROM hold, unnest(seats) s WHERE state <> 'freed' GROUP BY block, s HAVING count(*) > 1",
    ),
    (
        "counts and holds agree",
        "SELECT b.id::text FROM block b LEFT JOIN LATERAL (
             SELECT coalesce(sum(quantity) FILTER (WHERE state = 'held'), 0) h,
                    coalesce(sum(quantity) FILTER (WHERE state = 'attached'), 0) a,
                    coalesce(sum(quantity) FILTER (WHERE state = 'sold'), 0) s
             FROM hold WHERE hold.block = b.id) n ON true
         WHERE (b.held, b.attached, b.sold) <> (n.h, n.a, n.s)",
    ),
    (
        "the journal is without gaps and ends at the block's version",
        "SELECT b.id::text FROM block b LEFT JOIN journal j ON j.block = b.id GROUP BY b.id
         HAVING count(j.version) <> b.version - 1 OR coalesce(max(j.version), 1) <> b.version",
    ),
    (
        "the journal of a hold is a chain that ends in its state",
        "SELECT h.id::text FROM hold h JOIN LATERAL (
             SELECT bool_and(from_state = previous) chained, (array_agg(to_state ORDER BY version DESC))[1] last
             FROM (SELECT version, from_state, to_state,
                          lag(to_state, 1, 'free') OVER (ORDER BY version) previous
                   FROM journal WHERE journal.hold = h.id) steps) j ON true
         WHERE NOT coalesce(j.chained, false) OR j.last <> CASE h.state WHEN 'freed' THEN 'free' ELSE h.state END",
    ),
];

pub fn place(session: SessionId, show: ShowId, want: Want) -> PlaceHold {
    let (key, fingerprint) = (Uuid::new_v4().to_string(), format!("{want:?}"));
    PlaceHold { session, key, fingerprint, show, want, pass: None, block: None }
}

/// A new session wants the best seats of a show's only section.
pub fn best(show: &ShowPublished, quantity: u32) -> PlaceHold {
    let section = show.sections[0].section_id;
    place(SessionId::new(), show.show_id, Want::Best { section, quantity })
}

/// A new session wants these seats.
pub fn seats(show: &ShowPublished, seats: &[(BlockId, u16)]) -> PlaceHold {
    let seats = seats.iter().map(|(block, index)| SeatId { block: *block, index: *index }).collect();
    place(SessionId::new(), show.show_id, Want::Seats(seats))
}

pub fn of_order(attach: &Attach) -> OfOrder {
    OfOrder { hold_id: attach.hold_id, order_id: attach.order_id, step: StepId::new() }
}

pub fn rows(sizes: &[u32]) -> Seating {
    let label = |nth: usize| char::from(b'A' + u8::try_from(nth % 26).unwrap()).to_string();
    Seating::Rows(
        sizes.iter().enumerate().map(|(nth, seats)| Row { label: label(nth), seats: *seats }).collect(),
    )
}

/// Why there is no success.
pub fn code<T: std::fmt::Debug>(result: Result<T, Problem>) -> &'static str {
    match result {
        Ok(reply) => panic!("expected a problem, got {reply:?}"),
        Err(problem) => problem.code.as_str(),
    }
}

fn shifted(ahead_ms: i64) -> Timestamp {
    let now = Timestamp::now().unix_millis();
    Timestamp::from_unix_millis(now + ahead_ms).unwrap()
}

async fn connect(nats: &Nats, user: &str) -> Bus {
    let settings = stampede_bus::Settings {
        url: nats.url(),
        user: user.to_owned(),
        password: user.to_owned(),
        service: user.to_owned(),
        instance: format!("{user}-1"),
    };
    Bus::connect(settings).await.unwrap()
}

/// The users with the rights they have in production; each has its name for a password.
fn server_config() -> String {
    let quoted = |subjects: &[String]| -> String { subjects.iter().map(|s| format!("\"{s}\", ")).collect() };
    let user = |user: User| {
        let (publish, subscribe) = (quoted(&user.publish), quoted(&user.subscribe));
        let responses = if user.allow_responses { "allow_responses: true" } else { "" };
        let permissions = format!("publish: [ {publish}], subscribe: [ {subscribe}], {responses}");
        format!("{{ user: {0}, password: {0}, permissions: {{ {permissions} }} }}\n", user.name)
    };
    format!("authorization {{ users: [\n{}] }}\n", users().into_iter().map(user).collect::<String>())
}

/// As `stampede provision` does, as far as this service needs it. May be called again.
pub async fn provision(operator: &Bus) {
    let jetstream = operator.jetstream();
    for declared in STREAMS
        .iter()
        .filter(|stream| stream.name.starts_with("EVT") || stream.name == ADVISORIES || stream.name == "DLQ")
    {
        let config = stream::Config {
            name: declared.name.to_owned(),
            subjects: declared.subjects.iter().map(|subject| (*subject).to_owned()).collect(),
            max_messages_per_subject: if declared.last_per_subject { 1 } else { -1 },
            allow_direct: true,
            metadata: [("generation".to_owned(), Uuid::new_v4().to_string())].into(),
            ..stream::Config::default()
        };
        if jetstream.get_stream(declared.name).await.is_err() {
            jetstream.create_stream(config).await.unwrap();
        }
    }
    for declared in CONSUMERS.iter().filter(|consumer| consumer.service == "inventory") {
        let config = |name: &str, filter: Vec<String>| pull::Config {
            durable_name: Some(name.to_owned()),
            filter_subjects: filter,
            ack_policy: AckPolicy::Explicit,
            ack_wait: declared.ack_wait,
            max_deliver: declared.max_deliver,
            ..pull::Config::default()
        };
        let filter = declared.filter.iter().map(|subject| (*subject).to_owned()).collect();
        jetstream.create_consumer_on_stream(config(declared.name, filter), declared.stream).await.unwrap();
        let twin = config(&advisory_consumer(declared.name), vec![advisory_subject(declared)]);
        jetstream.create_consumer_on_stream(twin, ADVISORIES).await.unwrap();
    }
    for declared in BUCKETS {
        let config = kv::Config { bucket: declared.name.to_owned(), ..kv::Config::default() };
        if jetstream.get_key_value(declared.name).await.is_err() {
            jetstream.create_key_value(config).await.unwrap();
        }
    }
}
