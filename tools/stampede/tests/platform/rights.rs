//! A service that was taken over can do no more on NATS than its work: with its real password, on the platform as it
//! runs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, RequestErrorKind, Subscriber, jetstream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use stampede_contracts::topology::{self, User};
use stampede_testkit::eventually;

use crate::stage::{PATIENCE, Stage};

/// A request that is refused is not answered; what was allowed would be answered sooner.
const REFUSED_AFTER: Duration = Duration::from_secs(1);
const FORGED: &[u8] = b"forged";
/// Says that everything sent before it has arrived. In no stream, and nobody's subject.
const END: &str = "test.end";

/// Somebody connected as a user of the platform.
struct Guest {
    client: Client,
    complaints: Arc<Mutex<Vec<String>>>,
}

impl Guest {
    async fn connect(stage: &Stage, user: &str) -> Self {
        let complaints: Arc<Mutex<Vec<String>>> = Arc::default();
        let password = stage.platform.secrets().unwrap().nats_password(user).unwrap();
        let heard = Arc::clone(&complaints);
        // The server answers a forbidden publish or subscription with an error that only this callback sees.
        let options = ConnectOptions::with_user_and_password(user.to_owned(), password)
            .custom_inbox_prefix(format!("_INBOX_{user}"))
            .request_timeout(Some(REFUSED_AFTER))
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    heard.lock().unwrap().push(error.to_string());
                }
                async {}
            });
        let client = options.connect(url(stage)).await.unwrap();
        Self { client, complaints }
    }

    /// Waits until the server has complained about this subject, as it does before it reads what comes next.
    async fn is_refused(&self, what: &str, subject: &str) {
        let complaint = format!("Permissions Violation for {what} to \"{subject}\"").to_lowercase();
        eventually(PATIENCE, async || {
            self.complaints.lock().unwrap().iter().any(|said| said.to_lowercase().contains(&complaint))
        })
        .await;
    }

    async fn may_not_publish(&self, subject: &str) {
        self.client.publish(subject.to_owned(), FORGED.into()).await.unwrap();
        self.is_refused("Publish", subject).await;
    }

    async fn may_not_subscribe(&self, subject: &str) -> Subscriber {
        let subscriber = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.is_refused("Subscription", subject).await;
        subscriber
    }

    /// Nobody answers, although somebody would.
    async fn may_not_ask(&self, subject: &str) {
        let answer = self.client.request(subject.to_owned(), FORGED.into()).await;
        assert_eq!(answer.unwrap_err().kind(), RequestErrorKind::TimedOut, "{subject}");
        self.is_refused("Publish", subject).await;
    }
}

fn url(stage: &Stage) -> String {
    stage.platform.run_file().unwrap().urls.nats
}

/// Hears everything; says whether anything forged arrived by now.
struct Witness {
    operator: Guest,
    everything: Subscriber,
}

impl Witness {
    async fn of(stage: &Stage) -> Self {
        let operator = Guest::connect(stage, "operator").await;
        let everything = operator.client.subscribe(">").await.unwrap();
        let mut witness = Self { operator, everything };
        witness.heard_nothing_forged().await;
        witness
    }

    /// The server complained before this is sent, so what it let pass would have come before.
    async fn heard_nothing_forged(&mut self) {
        self.operator.client.publish(END, "".into()).await.unwrap();
        let heard = async {
            while let Some(message) = self.everything.next().await {
                assert_ne!(&message.payload[..], FORGED, "{}", message.subject);
                if message.subject.as_str() == END {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.unwrap();
    }

    async fn streams(&self) -> Vec<String> {
        let jetstream = jetstream::new(self.operator.client.clone());
        let mut names: Vec<String> = jetstream.stream_names().try_collect().await.unwrap();
        names.sort();
        names
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogs_password_opens_only_the_catalogs_doors() {
    let stage = Stage::start(&[]).await;
    let mut witness = Witness::of(&stage).await;
    let catalog = Guest::connect(&stage, "catalog").await;

    catalog.may_not_publish("cmd.payments.authorise").await;
    // A card's token and a buyer's address are each for one service only.
    catalog.may_not_ask("rpc.orders.card").await;
    catalog.may_not_ask("rpc.orders.buyer").await;
    let streams = witness.streams().await;
    catalog.may_not_publish("$JS.API.STREAM.CREATE.CATALOGS_OWN").await;
    catalog.may_not_publish("$JS.API.STREAM.DELETE.EVT_FACTS").await;
    catalog.may_not_publish("$JS.API.STREAM.PURGE.EVT_INVENTORY").await;
    witness.heard_nothing_forged().await;
    assert_eq!(witness.streams().await, streams);

    let mut calls = catalog.may_not_subscribe("rpc.inventory.>").await;
    let mut answers = catalog.may_not_subscribe("_INBOX_orders.>").await;
    let mut own = catalog.client.subscribe("_INBOX_catalog.>").await.unwrap();
    // Once the server knows the subscription that is allowed, it has decided about those before it.
    eventually(PATIENCE, async || {
        witness.operator.client.publish("_INBOX_catalog.here", "".into()).await.unwrap();
        own.next().now_or_never().is_some()
    })
    .await;
    for subject in ["rpc.inventory.any.overheard", "_INBOX_orders.overheard", "_INBOX_catalog.last"] {
        witness.operator.client.publish(subject, "overheard".into()).await.unwrap();
    }
    let last = async { while own.next().await.unwrap().subject.as_str() != "_INBOX_catalog.last" {} };
    tokio::time::timeout(PATIENCE, last).await.unwrap();
    assert!(calls.next().now_or_never().is_none() && answers.next().now_or_never().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_service_may_do_what_only_another_may() {
    let stage = Stage::start(&[]).await;
    let mut witness = Witness::of(&stage).await;
    let users = topology::users();
    let services = || users.iter().filter(|user| user.name != "operator");
    for service in services() {
        let guest = Guest::connect(&stage, service.name).await;
        for other in services().filter(|other| other.name != service.name) {
            let foreign = foreign(&other.publish, &service.publish);
            assert!(!foreign.is_empty(), "{} may all that {} may", service.name, other.name);
            for subject in foreign {
                guest.may_not_publish(&subject).await;
            }
            guest.may_not_subscribe(&inbox(other)).await;
            for subject in foreign_subscriptions(other, service) {
                guest.may_not_subscribe(&subject).await;
            }
        }
        witness.heard_nothing_forged().await;
    }
}

fn inbox(user: &User) -> String {
    format!("_INBOX_{}.>", user.name)
}

/// A subject for each right of one that the other has not.
fn foreign(rights: &[String], own: &[String]) -> Vec<String> {
    let subjects = rights.iter().map(|right| right.replace(['*', '>'], "x"));
    subjects.filter(|subject| !own.iter().any(|right| covers(right, subject))).collect()
}

fn foreign_subscriptions(other: &User, service: &User) -> Vec<String> {
    let subjects = other.subscribe.iter().filter(|subject| **subject != inbox(other));
    subjects.filter(|subject| !service.subscribe.iter().any(|own| covers(own, subject))).cloned().collect()
}

/// Whether a right of NATS, with its wildcards, covers a subject.
fn covers(right: &str, subject: &str) -> bool {
    let (mut right, mut subject) = (right.split('.'), subject.split('.'));
    loop {
        match (right.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(token), Some(word)) if token == "*" || token == word => {}
            _ => return false,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_the_right_password() {
    let stage = Stage::start(&[]).await;
    let refused = async |options: ConnectOptions| {
        let error = options.connect(url(&stage)).await.unwrap_err();
        assert_eq!(error.kind(), ConnectErrorKind::AuthorizationViolation, "{error}");
    };
    for user in topology::users() {
        refused(ConnectOptions::with_user_and_password(user.name.to_owned(), "guess".to_owned())).await;
        refused(ConnectOptions::with_user_and_password(user.name.to_owned(), String::new())).await;
    }
    refused(ConnectOptions::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_rows_to_write_and_no_table_to_change() {
    let stage = Stage::start(&[]).await;
    let (run, secrets) = (stage.platform.run_file().unwrap(), stage.platform.secrets().unwrap());
    for database in ["catalog", "inventory", "lobby", "notify", "orders", "payments", "psp_sim"] {
        let password = secrets.postgres_password(database).unwrap();
        let url = format!("postgres://{database}:{password}@{}/{database}", run.urls.postgres);
        let mut service = PgConnection::connect(&url).await.unwrap();
        let tables = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
        let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut service).await.unwrap();
        assert!(tables.len() > 1, "{database}: {tables:?}");
        for table in tables {
            for statement in [
                format!("ALTER TABLE {table} ADD COLUMN more int"),
                format!("ALTER TABLE {table} DISABLE TRIGGER ALL"),
                format!("DROP TABLE {table}"),
                format!("TRUNCATE {table}"),
            ] {
                let refused = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut service).await;
                let error = refused.unwrap_err().into_database_error().unwrap();
                assert_eq!(error.code().as_deref(), Some("42501"), "{database}: {statement}");
            }
        }
        assert!(
            sqlx::raw_sql("CREATE TABLE another (x int)").execute(&mut service).await.is_err(),
            "{database}"
        );
    }
}
