//! The stage: servers, players, nodes of orders that can crash, and a client.

use std::sync::Arc;
use std::time::Duration;

use stampede_bus::{Bus, Settings};
use stampede_contracts::SessionId;
use stampede_contracts::topology::{User, users};
use stampede_idempotency::Fingerprinter;
use stampede_orders::app::{App, Parts};
use stampede_orders::clients::Inventory as InventoryClient;
use stampede_orders::config::Config;
use stampede_orders::domain::Plans;
use stampede_orders::metrics::Metrics;
use stampede_orders::store::Store;
use stampede_orders::wakeups::Wakeups;
use stampede_orders::{IDENTITY, MIGRATOR, SERVICE};
use stampede_outbox::Outbox;
use stampede_service::{Command, Env, Node as ServiceNode};
use stampede_testkit::{Database, Nats, free_port, fresh_database};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{Cart, Node};
use crate::players::{Inventory, Notify, Payments};

/// Long enough for a busy machine; nothing that succeeds waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Planted where personal data goes, and looked for where it must not be.
pub const NAME: &str = "Ada Marker-Lovelace";
pub const EMAIL: &str = "ada.marker@example.org";
pub const CARD: &str = "tok_marker_4242";

/// Servers and players.
pub struct Stage {
    pub nats: Nats,
    pub database: Database,
    pub operator: Bus,
    pub inventory: Arc<Inventory>,
    pub payments: Arc<Payments>,
    pub notify: Arc<Notify>,
    _tasks: JoinSet<()>,
}

/// The rights of every service, as declared: a test that needs more fails.
fn server_config() -> String {
    let quoted = |subjects: &[String]| {
        subjects.iter().map(|subject| format!("\"{subject}\"")).collect::<Vec<_>>().join(", ")
    };
    let user = |user: User| {
        let (publish, subscribe) = (quoted(&user.publish), quoted(&user.subscribe));
        let responses = if user.allow_responses { "allow_responses: true" } else { "" };
        let permissions = format!("publish: [ {publish}], subscribe: [ {subscribe}], {responses}");
        format!("{{ user: {0}, password: {0}, permissions: {{ {permissions} }} }}\n", user.name)
    };
    format!("authorization {{ users: [\n{}] }}\n", users().into_iter().map(user).collect::<String>())
}

async fn connect(nats: &Nats, user: &str) -> Bus {
    let settings = Settings {
        url: nats.url(),
        user: user.into(),
        password: user.into(),
        service: user.into(),
        instance: format!("{user}-played"),
    };
    Bus::connect(settings).await.unwrap()
}

impl Stage {
    pub async fn set() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let nats = Nats::start_with_config(&server_config()).await;
        let database = fresh_database(SERVICE, &MIGRATOR).await;
        let operator = connect(&nats, "operator").await;
        stampede_testkit::provision(operator.jetstream()).await;

        let inventory = Arc::new(Inventory::default());
        let payments = Arc::new(Payments::new(connect(&nats, "payments").await));
        let notify = Arc::new(Notify::new(connect(&nats, "notify").await));
        let mut tasks = JoinSet::new();
        let responder = inventory.responder(connect(&nats, "inventory").await);
        tasks.spawn(async move { responder.run(CancellationToken::new()).await.unwrap() });
        tasks.spawn(Arc::clone(&payments).run(CancellationToken::new()));
        tasks.spawn(Arc::clone(&notify).run(CancellationToken::new()));
        Self { nats, database, operator, inventory, payments, notify, _tasks: tasks }
    }

    /// The environment of a node, with some keys of its own.
    pub fn env(&self, port: u16, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let key = "07".repeat(32);
        let listen = format!("127.0.0.1:{port}");
        let (database, nats) = (self.database.url(), self.nats.url());
        let pairs = [
            ("DATABASE_URL", database.as_str()),
            ("DATABASE_MAX_CONNECTIONS", "6"),
            ("NATS_URL", nats.as_str()),
            ("NATS_PASSWORD", SERVICE),
            ("HTTP_LISTEN", listen.as_str()),
            ("TICKET_SIGNING_KEY", key.as_str()),
            ("FINGERPRINT_KEY", key.as_str()),
            ("CALL_TIMEOUT_MS", "1000"),
            ("SWEEP_EVERY_MS", "50"),
            // Nothing is sent again in a test that does not set it.
            ("RETRY_AFTER_MS", "60000"),
        ];
        pairs.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// A node that takes requests.
    pub async fn node(&self, more: &[(&str, &str)]) -> Node {
        let port = free_port();
        let env = Env::from_pairs(self.env(port, more));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let node = ServiceNode::with_env(IDENTITY, env, Command::Serve).unwrap();
            stampede_orders::run(node).await.unwrap();
        });
        Node::start(port, runtime).await
    }

    /// The application alone, without anything that goes on by itself.
    pub async fn app(&self) -> App {
        let config = Config::from_env(&Env::from_pairs(self.env(0, &[]))).unwrap();
        let (pool, bus) = (self.database.pool().clone(), connect(&self.nats, SERVICE).await);
        App::new(Parts {
            store: Store::new(pool.clone()),
            reads: Store::new(pool.clone()),
            lookups: Store::new(pool.clone()),
            outbox: Outbox::new(pool, config.outbox_partitions),
            bus: bus.clone(),
            inventory: InventoryClient::new(bus, config.call_timeout),
            wakeups: Wakeups::default(),
            metrics: Metrics::default(),
            plans: Plans::try_new(config.timing.refund).unwrap(),
            ticket_key: config.ticket_key,
            fingerprinter: config.fingerprint_key.map(|key| Fingerprinter::new(key.expose().as_bytes())),
            timing: config.timing,
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            draining: CancellationToken::new(),
        })
    }

    /// A hold of a new session, and the order for it.
    pub fn cart(&self) -> Cart {
        let session = SessionId::new();
        Cart::of(session, self.inventory.hold(session))
    }

    /// How many transactions wrote orders, steps, tickets, inbox or outbox since [`count_writes`](Self::count_writes).
    pub async fn writes(&self) -> i64 {
        sqlx::query_scalar("SELECT count(DISTINCT xid) FROM written")
            .fetch_one(self.database.pool())
            .await
            .unwrap()
    }

    /// From now on every transaction that inserts or updates leaves a mark. Deleting from the outbox, which the relay
    /// does by the batch, is outside of the budget.
    pub async fn count_writes(&self) {
        let sql = "
            CREATE TABLE written (xid text);
            CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN INSERT INTO written VALUES (pg_current_xact_id()::text); RETURN NULL; END';";
        sqlx::raw_sql(sql).execute(self.database.pool()).await.unwrap();
        for table in ["orders", "step", "ticket", "inbox", "outbox"] {
            let sql = format!(
                "CREATE TRIGGER mark AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION mark()"
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(self.database.pool()).await.unwrap();
        }
    }

    /// Everything that lies in any stream, as text.
    pub async fn everything_published(&self) -> String {
        let mut text = String::new();
        for stream in ["EVT_FACTS", "CMD_PAYMENTS", "CMD_NOTIFY", "DLQ"] {
            let stream = self.operator.jetstream().get_stream(stream).await.unwrap();
            let state = &stream.cached_info().state;
            for sequence in state.first_sequence..=state.last_sequence {
                // Work queues have gaps.
                if let Ok(message) = stream.get_raw_message(sequence).await {
                    text.push_str(&format!("{:?} ", message.headers));
                    text.push_str(&String::from_utf8_lossy(&message.payload));
                }
            }
        }
        text
    }

    pub async fn dead_letters(&self) -> u64 {
        let stream = self.operator.jetstream().get_stream("DLQ").await.unwrap();
        stream.cached_info().state.messages
    }
}
