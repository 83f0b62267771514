//! Two who change an order at once: the second writes nothing, reads again, and decides on what is there.

use std::collections::HashSet;
use std::time::Duration;

use stampede_bus::Message;
use stampede_contracts::command::{MailCommand, MailKind};
use stampede_contracts::{BlockId, HoldId, OrderId, SessionId, StepId};
use stampede_idempotency::Fingerprinter;
use stampede_orders::domain::{Buyer, CardToken, OrderSecret, Outcome, Recorded, StepKind};
use stampede_orders::store::{Draft, NewOrder, Placement, Snapshot, Store, Write};
use stampede_orders::wakeups::Change;
use stampede_orders::{MIGRATOR, SERVICE};
use stampede_outbox::Outbox;
use stampede_postgres::PgPool;
use stampede_testkit::fresh_database;

use crate::stage::{CARD, EMAIL, NAME};

pub async fn placed(store: &Store) -> Snapshot {
    let second = Duration::from_secs(1);
    let new = NewOrder {
        id: OrderId::new(),
        session: SessionId::new(),
        key: "a-key-of-the-buyer".parse().unwrap(),
        fingerprint: Fingerprinter::new(&[7; 32]).fingerprint(&[]),
        hold_id: HoldId::new(BlockId::from_number(1)),
        buyer: Buyer::try_new(NAME, EMAIL).unwrap(),
        card: CardToken::try_new(CARD).unwrap(),
        secret: OrderSecret::from_random([1; 32]),
        traceparent: None,
        attach: StepId::new(),
        decide_within: second * 900,
        answer_within: second,
        retry_after: second,
    };
    let Placement::New(snapshot) = store.place(new).await.unwrap() else { panic!("the session is new") };
    *snapshot
}

async fn read(store: &Store, id: OrderId) -> Snapshot {
    Store::snapshots(store.pool(), &[id]).await.unwrap().pop().unwrap()
}

/// The attach has an outcome: with an event for the inbox and a message, so that there is something of everything.
fn attached(snapshot: &Snapshot, event: &str, outbox: &Outbox) -> Write {
    let mut draft = Draft::from(snapshot.clone());
    let attach = draft.order.step(StepKind::Attach).unwrap().id;
    let outcome = Outcome::Done { detail: Some(event.to_owned()) };
    assert_eq!(draft.order.record(attach, outcome, draft.now), Recorded::New);
    draft.events.push(event.to_owned());
    let command = MailCommand { step_id: attach, order_id: draft.order.id, kind: MailKind::Failed };
    let message = Message::new(&command, event).unwrap();
    Write {
        next_at: draft.now,
        mails_next_at: draft.now,
        messages: vec![outbox.row(&draft.order.id.to_string(), message)],
        draft,
        reply: None,
        change: Change::Progress,
        tickets: Vec::new(),
        revoke: false,
    }
}

async fn texts(pool: &PgPool, sql: &'static str) -> Vec<String> {
    sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
}

#[tokio::test]
async fn of_a_change_that_comes_second_nothing_is_written() {
    let database = fresh_database(SERVICE, &MIGRATOR).await;
    let pool = database.pool();
    let (store, outbox) = (Store::new(pool.clone()), Outbox::new(pool.clone(), 1));
    let snapshot = placed(&store).await;
    let id = snapshot.order.id;

    let first = attached(&snapshot, "first", &outbox);
    let second = attached(&snapshot, "second", &outbox);
    // Beside one that nobody has touched: it is not held back.
    let other = placed(&store).await;
    let beside = attached(&other, "beside", &outbox);
    assert_eq!(store.save(std::slice::from_ref(&first)).await.unwrap(), HashSet::from([id]));
    assert_eq!(store.save(&[second, beside]).await.unwrap(), HashSet::from([other.order.id]));

    let in_order = ["first", "beside"];
    assert_eq!(texts(pool, "SELECT ce_id FROM outbox ORDER BY id").await, in_order);
    assert_eq!(texts(pool, "SELECT ce_id FROM inbox ORDER BY seen_at").await, in_order);
    assert_eq!(texts(pool, "SELECT outcome FROM step ORDER BY done_at, step_id").await, in_order);
    assert_eq!(first.draft.into_written().order, read(&store, id).await.order, "it need not be read again");
}

#[tokio::test]
async fn an_answer_that_was_stored_meanwhile_is_a_change() {
    let database = fresh_database(SERVICE, &MIGRATOR).await;
    let store = Store::new(database.pool().clone());
    let outbox = Outbox::new(database.pool().clone(), 1);
    let snapshot = placed(&store).await;
    let accepted = stampede_orders::domain::Reply { status: 202, body: "{}".to_owned() };
    assert!(store.answer_once(snapshot.order.id, &accepted).await.unwrap());
    assert!(store.save(&[attached(&snapshot, "late", &outbox)]).await.unwrap().is_empty());

    let again = read(&store, snapshot.order.id).await;
    assert_eq!(again.order.replied, Some(202));
    assert_eq!(store.save(&[attached(&again, "late", &outbox)]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_event_has_its_effect_once_whatever_is_decided() {
    let database = fresh_database(SERVICE, &MIGRATOR).await;
    let store = Store::new(database.pool().clone());
    let outbox = Outbox::new(database.pool().clone(), 1);
    let (one, other) = (placed(&store).await, placed(&store).await);
    assert_eq!(store.save(&[attached(&one, "event", &outbox)]).await.unwrap().len(), 1);
    let error = store.save(&[attached(&other, "event", &outbox)]).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().constraint(), Some("inbox_pkey"));
    assert_eq!(read(&store, other.order.id).await.order, other.order);
}
