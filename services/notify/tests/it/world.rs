//! A world for each test: Postgres, NATS, a mail server, `orders`, and the process.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use stampede_bus::{Bus, DeadLetter, Settings};
use stampede_contracts::StepId;
use stampede_contracts::event::MailResult;
use stampede_contracts::topology::{CMD_NOTIFY, DLQ, EVT_FACTS};
use stampede_notify::store::MIGRATOR;
use stampede_testkit::{Database, Nats, eventually, fresh_database, provision, rights};
use tokio::process::{Child, Command};

use crate::orders::Orders;
use crate::smtp::MailServer;

/// Longer than anything that is waited for, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    pub orders: Orders,
    pub mail: MailServer,
    pub operator: Bus,
    pub database: Database,
    nats: Nats,
    log: PathBuf,
}

/// The process. It is killed with this value, as by a crash.
pub struct Process(Child);

impl Process {
    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    pub async fn crash(mut self) {
        self.0.kill().await.unwrap();
    }
}

impl World {
    /// A world with one process, which is told this besides.
    pub async fn start(settings: &[(&str, &str)]) -> (Self, Process) {
        let world = Self::new().await;
        let process = world.process(settings);
        (world, process)
    }

    /// A world in which nobody works.
    pub async fn new() -> Self {
        let nats = Nats::start_with_config(&rights()).await;
        let operator = connect(&nats, "operator").await;
        provision(operator.jetstream()).await;
        let orders = Orders::start(connect(&nats, "orders").await);
        let database = fresh_database("notify", &MIGRATOR).await;
        let log = std::env::temp_dir().join(format!("stampede-notify-{}.log", uuid::Uuid::new_v4().simple()));
        Self { orders, mail: MailServer::start().await, operator, database, nats, log }
    }

    /// Another process, or the next one after a crash.
    pub fn process(&self, settings: &[(&str, &str)]) -> Process {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_stampede-notify"))
            .env_clear()
            .env("DATABASE_URL", self.database.url())
            .env("NATS_URL", self.nats.url())
            .env("NATS_PASSWORD", "notify")
            .env("SMTP_URL", &self.mail.url)
            // More than anybody would read: what is personal is in none of it.
            .env("RUST_LOG", "debug")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        Process(child.unwrap())
    }

    /// How often a child of the process failed.
    pub fn failures(&self) -> usize {
        fs::read_to_string(&self.log).unwrap().matches("child failed").count()
    }

    /// Results of a step with their CloudEvents ids, in the order in which they were published.
    pub async fn results(&self, step: StepId) -> Vec<(String, bool)> {
        let all = messages(&self.operator, EVT_FACTS).await;
        let read = |message: StreamMessage| {
            let result: MailResult = serde_json::from_slice(&message.payload).unwrap();
            let id = message.headers.get("ce-id").unwrap().to_string();
            (result.step_id == step).then_some((id, result.sent))
        };
        all.into_iter().filter_map(read).collect()
    }

    /// Waits until so many results of a step were published; gives what they say.
    pub async fn results_become(&self, step: StepId, count: usize) -> Vec<(String, bool)> {
        eventually(PATIENCE, async || self.results(step).await.len() >= count).await;
        let results = self.results(step).await;
        assert_eq!(results.len(), count, "{results:?}");
        results
    }

    /// Waits until so many dead letters are there.
    pub async fn letters_become(&self, count: usize) -> Vec<DeadLetter> {
        let letters = async || self.operator.dead_letters(None, 0, 100).await.unwrap();
        eventually(PATIENCE, async || letters().await.len() == count).await;
        letters().await
    }

    /// `state attempts` of a row, once it was taken.
    pub async fn row(&self, step: StepId) -> Option<String> {
        let row = sqlx::query_as("SELECT state, attempts FROM mail WHERE step_id = $1").bind(step.uuid());
        let row: Option<(String, i32)> = row.fetch_optional(self.database.pool()).await.unwrap();
        row.map(|(state, attempts)| format!("{state} {attempts}"))
    }

    /// What has to hold at the end of every test: nothing personal was published, stored or logged.
    pub async fn check(&self) {
        let mut places = vec![("the log".to_owned(), fs::read_to_string(&self.log).unwrap())];
        for stream in [EVT_FACTS, CMD_NOTIFY, DLQ] {
            for message in messages(&self.operator, stream).await {
                let text = format!("{:?} {}", message.headers, String::from_utf8_lossy(&message.payload));
                // Header values travel percent-encoded.
                places.push((stream.to_owned(), text.replace("%20", " ")));
            }
        }
        for sql in ["SELECT mail::text FROM mail", "SELECT outbox::text FROM outbox"] {
            let rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(self.database.pool()).await.unwrap();
            places.extend(rows.into_iter().map(|row| (sql.to_owned(), row)));
        }
        for (place, text) in &places {
            for marker in self.orders.markers() {
                assert!(!text.contains(&marker), "{marker} in {place}: {text}");
            }
        }
        assert!(places[0].1.contains("starting"), "a log that says nothing proves nothing");
        assert!(!places[0].1.contains("ermissions"), "a right is missing in the topology: {}", places[0].1);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of the process is {}", self.log.display());
        } else {
            let _ = fs::remove_file(&self.log);
        }
    }
}

/// Everything that lies in a stream.
async fn messages(operator: &Bus, stream: &str) -> Vec<StreamMessage> {
    let stream = operator.jetstream().get_stream(stream).await.unwrap();
    let state = &stream.cached_info().state;
    let mut messages = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        // Work queues and dead letters have gaps.
        messages.extend(stream.get_raw_message(sequence).await);
    }
    messages
}

async fn connect(nats: &Nats, user: &str) -> Bus {
    let settings = Settings {
        url: nats.url(),
        user: user.to_owned(),
        password: user.to_owned(),
        service: user.to_owned(),
        instance: format!("{user}-played"),
    };
    Bus::connect(settings).await.unwrap()
}
