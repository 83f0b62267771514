//! A server, a database, replicas of the service, and those who talk to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use stampede_bus::{Bus, CallError, Message};
use stampede_contracts::event::{
    BlockState, LayoutPublished, LobbyRules, Row, Seating, SectionPlan, ShowPublished,
};
use stampede_contracts::inventory::{
    Attach, AttachHold, ClosePass, ClosePassOf, ConfirmHold, DetachHold, FreeHold, GetHold, Hold, HoldAnswer,
    HoldOf, HoldView, OfOrder, PassEnd, PlaceHold, ReleaseHold, Want,
};
use stampede_contracts::signed::{Pass, SigningKey};
use stampede_contracts::topology::{EVT_INVENTORY, LAYOUT};
use stampede_contracts::{
    BlockId, Function, HoldId, LobbyTicket, Money, OrderId, PassId, Problem, SeatId, SectionId, SessionId,
    ShowId, StepId, Timestamp,
};
use stampede_inventory::app;
use stampede_inventory::inventory::{Clock, Inventory};
use stampede_postgres::PgPool;
use stampede_service::{Command, Env, Node};
use stampede_telemetry::Telemetry;
use stampede_testkit::{Database, Nats, eventually, fresh_database};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::invariants;
use crate::server::{self, provision};

/// Long enough for a busy machine; nothing that succeeds waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);
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
        let nats = Nats::start_with_config(&server::config()).await;
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
        let ahead = Arc::clone(&self.ahead_ms);
        self.replica_by(Some(Arc::new(move || shifted(ahead.load(Ordering::SeqCst))))).await
    }

    /// With this clock, or the database's.
    pub async fn replica_by(&self, clock: Option<Clock>) -> Replica {
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
        let node = Node::with_env(app::IDENTITY, env, Command::Serve).unwrap();
        let inventory = app::start(&node, clock).await.unwrap();
        let draining = node.draining();
        let replica = Replica { inventory, draining, ended: Some(tokio::spawn(node.idle())) };
        // An answer, whichever, says that it listens.
        let nobody = HoldOf { hold_id: HoldId::new(BlockId::from_number(1)), session: SessionId::new() };
        let call = || self.call::<GetHold>(&self.gateway, &nobody);
        eventually(PATIENCE, async || code(call().await) == "hold_not_found").await;
        replica
    }

    /// New connections, after the server was another one for a moment. The replicas find it by themselves.
    pub async fn reconnect(&mut self) {
        self.operator = connect(&self.nats, "operator").await;
        self.gateway = connect(&self.nats, "gateway").await;
    }

    /// A connection with the rights of the service itself.
    pub async fn inventory_bus(&self) -> Bus {
        connect(&self.nats, "inventory").await
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
        let value = self.operator.kv_get(LAYOUT, &show.to_string()).await.ok()??;
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
            error @ (CallError::Refused(_) | CallError::Failed(_)) => error.into(),
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
        invariants::check(self.pool()).await;
        // Of all connections in this process, those of the replicas too.
        let metrics = Telemetry::installed().unwrap().metrics().render().unwrap();
        let forbidden = metrics.lines().find(|line| line.starts_with("stampede_bus_permission_violations"));
        assert_eq!(forbidden, None);
    }

    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.pool()).await.unwrap()
    }
}

pub fn place(session: SessionId, show: ShowId, want: Want) -> PlaceHold {
    let (key, fingerprint) = (Uuid::new_v4().to_string(), format!("{want:?}"));
    PlaceHold {
        session,
        key,
        fingerprint,
        other_fingerprints: Vec::new(),
        show,
        want,
        pass: None,
        block: None,
    }
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
