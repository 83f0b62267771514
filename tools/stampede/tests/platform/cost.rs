//! What a purchase costs in writing transactions and in messages, which on two cores decides how many there can be.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use async_nats::jetstream;
use stampede::load::{Habits, Outcome};
use stampede::verify::Sources;
use stampede_contracts::topology::{CMD_NOTIFY, CMD_PAYMENTS, EVT_CATALOG, EVT_FACTS, EVT_INVENTORY};

use crate::stage::Stage;
use crate::wal::{Kind, Wal};

const BUYERS: u64 = 200;
/// Far below what two busy cores can do: what is repeated because of them is no cost of a purchase.
const RATE: f64 = 15.0;
/// Of the services' databases, from the hold to the confirmed answer.
const TRANSACTIONS_MAX: f64 = 15.0;
/// Stored by JetStream; the state of a block that changed ten times in a tenth of a second is one.
const MESSAGES_MAX: f64 = 10.0;
/// Where a purchase is written.
const PURCHASE: [&str; 3] = ["inventory", "orders", "payments"];

/// What a transaction was for, as the table says it.
fn purpose(kind: &Kind) -> &'static str {
    match kind.database.as_deref() {
        _ if kind.is_housekeeping() => "outside: Postgres itself",
        // Without a row it has no database to tell: nobody else's, so the purchase's.
        None => COUNTED,
        Some(_) if kind.touches_only("outbox") && kind.only_deletes => "outside: outbox marks",
        Some(name) if PURCHASE.contains(&name) => COUNTED,
        Some(_) => "outside: others' own",
    }
}

const COUNTED: &str = "a purchase";

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_takes_at_most_fifteen_transactions_and_ten_messages() {
    let stage = Stage::start(&[]).await;
    let show = stage.general_admission("meadow", &[3_000, 3_000]).await;
    let wal = Wal::from_now(&stage).await;
    let before = messages(&stage).await;

    let plan = stage.plan(&[&show.summary.slug], BUYERS, RATE, Habits::ONLY_BUY);
    let summary = stage.under_load(plan, async {}).await;
    assert_eq!(summary.count(Outcome::Bought), BUYERS, "{summary}");
    // What is still on its way belongs to the cost.
    stage.verify().await;

    let per_purchase = |count: u64| count as f64 / summary.confirmed as f64;
    let mut table = format!("each of {} purchases at {RATE} a second\n", summary.confirmed);
    let (mut transactions, mut published) = (0.0, 0.0);
    let mut kinds: Vec<(Kind, u64)> = wal.transactions().await.into_iter().collect();
    kinds.sort_by_key(|(kind, count)| (purpose(kind) != COUNTED, std::cmp::Reverse(*count)));
    for (kind, count) in &kinds {
        if purpose(kind) == COUNTED {
            transactions += per_purchase(*count);
        }
        let tables: Vec<&str> = kind.tables.iter().map(String::as_str).collect();
        let database = kind.database.as_deref().unwrap_or("no row");
        let (each, purpose) = (per_purchase(*count), purpose(kind));
        writeln!(table, "  {each:>7.2}  {database:<10} {:<48} {purpose}", tables.join(" ")).unwrap();
    }
    for (stream, last) in messages(&stage).await {
        let each = per_purchase(last - before[stream]);
        published += each;
        writeln!(table, "  {each:>7.2}  {stream}").unwrap();
    }
    // How long a mail waits for its turn is up to the mail server, and meanwhile its command is repeated.
    let repeated = per_purchase(mail_commands_repeated(&stage).await);
    published -= repeated;
    writeln!(
        table,
        "  {repeated:>7.2}  of {CMD_NOTIFY} again, as mails waited               outside: notify's own"
    )
    .unwrap();
    writeln!(table, "{transactions:.2} transactions, {published:.2} messages").unwrap();
    eprintln!("{table}");
    // A purchase that wrote nothing, or that this test did not see, would be cheap indeed.
    assert!(transactions > 5.0 && published > 3.0, "{table}");
    assert!(transactions <= TRANSACTIONS_MAX, "{table}");
    assert!(published <= MESSAGES_MAX, "{table}");
}

/// Commands to send a mail that were sent once more.
async fn mail_commands_repeated(stage: &Stage) -> u64 {
    let databases = Sources::of(&stage.platform.state).await.unwrap().databases;
    let query = "SELECT coalesce(sum(attempt), 0)::bigint FROM step WHERE kind LIKE 'notify_%'";
    let repeated: i64 = sqlx::query_scalar(query).fetch_one(&databases.orders).await.unwrap();
    repeated.unsigned_abs()
}

/// The number of messages that each stream ever stored.
async fn messages(stage: &Stage) -> BTreeMap<&'static str, u64> {
    let password = stage.platform.secrets().unwrap().nats_password("operator").unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password("operator".to_owned(), password);
    let client = options.connect(stage.platform.run_file().unwrap().urls.nats).await.unwrap();
    let jetstream = jetstream::new(client);
    let mut messages = BTreeMap::new();
    for name in [EVT_FACTS, CMD_PAYMENTS, CMD_NOTIFY, EVT_INVENTORY, EVT_CATALOG] {
        let stream = jetstream.get_stream(name).await.unwrap();
        messages.insert(name, stream.cached_info().state.last_sequence);
    }
    messages
}
