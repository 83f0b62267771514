//! What the sweeper takes next: nothing waits indefinitely behind other kinds of steps, or behind what is older.

use std::collections::HashSet;
use std::time::Duration;

use stampede_contracts::OrderId;
use stampede_contracts::command::{MailKind, PaymentAction};
use stampede_orders::domain::{Pauses, StepKind};
use stampede_orders::store::{Budget, Store};
use stampede_orders::{MIGRATOR, SERVICE};
use stampede_postgres::PgPool;
use stampede_testkit::{eventually, fresh_database};

use crate::overtaken::placed;
use crate::players::Manner;
use crate::recovery::EAGER;
use crate::stage::{PATIENCE, Stage};

const MINUTE: Duration = Duration::from_secs(60);
const MAIL: StepKind = StepKind::Notify(MailKind::Tickets);

/// Begins a step that has been due for `due_for_s` seconds.
async fn begin(pool: &PgPool, order: OrderId, kind: StepKind, due_for_s: i32) {
    let sql = "INSERT INTO step (step_id, order_id, kind, created_at, next_at)
        VALUES (gen_random_uuid(), $1, $2, now(), now() - make_interval(secs => $3))";
    let insert = sqlx::query(sql).bind(order.uuid()).bind(kind.as_str()).bind(f64::from(due_for_s));
    insert.execute(pool).await.unwrap();
}

#[tokio::test]
async fn no_undo_waits_behind_mails_and_those_due_longest_are_taken_first() {
    let database = fresh_database(SERVICE, &MIGRATOR).await;
    let store = Store::new(database.pool().clone());
    let mut orders = Vec::new();
    for due_for_s in 100..130 {
        let order = placed(&store).await.order.id;
        begin(store.pool(), order, MAIL, due_for_s).await;
        orders.push(order);
    }
    begin(store.pool(), orders[0], StepKind::Void, 1).await;

    let pauses = Pauses { first: MINUTE, longest: MINUTE };
    let budgets = [Budget::new(&[StepKind::Void], pauses, 2), Budget::new(&[MAIL], pauses, 2)];
    let mut connection = store.pool().acquire().await.unwrap();
    let due = Store::take_due_steps(&mut connection, &budgets).await.unwrap();
    assert_eq!(due.len(), 3);
    assert!(due.iter().all(|step| step.attempt == 1));
    let taken: Vec<(OrderId, String)> = sqlx::query_as("SELECT order_id, kind FROM step WHERE attempt = 1")
        .fetch_all(store.pool())
        .await
        .unwrap()
        .into_iter()
        .map(|(order, kind)| (OrderId::from_uuid(order), kind))
        .collect();
    // The void, and the two mails that have been due for longest.
    let expected = [(orders[0], StepKind::Void), (orders[28], MAIL), (orders[29], MAIL)]
        .map(|(order, kind)| (order, kind.as_str().to_owned()));
    assert_eq!(taken.iter().collect::<HashSet<_>>(), expected.iter().collect());
    // Then those behind them.
    let due = Store::take_due_steps(&mut connection, &budgets).await.unwrap();
    let due: HashSet<OrderId> = due.iter().map(|step| step.order_id).collect();
    assert_eq!(due, HashSet::from([orders[26], orders[27]]));
}

#[tokio::test]
async fn orders_of_which_nothing_follows_hold_back_none_of_those_behind_them() {
    let database = fresh_database(SERVICE, &MIGRATOR).await;
    let store = Store::new(database.pool().clone());
    let mut orders = Vec::new();
    for _ in 0..5 {
        orders.push(placed(&store).await.order.id);
    }
    sqlx::query("UPDATE step SET state = 'done', done_at = now()").execute(store.pool()).await.unwrap();
    let (mut seen, mut round) = (Vec::new(), None);
    for size in [2, 2, 1, 2] {
        let (found, next) = store.undecided(round, 2).await.unwrap();
        assert_eq!(found.len(), size);
        seen.extend(found);
        round = next;
    }
    assert_eq!(seen[..5], orders, "the oldest first");
    assert_eq!(seen[5..], orders[..2], "and then from the beginning");
}

#[tokio::test]
async fn a_mail_that_is_open_keeps_no_order_from_being_decided_on() {
    let database = fresh_database(SERVICE, &MIGRATOR).await;
    let store = Store::new(database.pool().clone());
    let order = placed(&store).await.order.id;
    assert_eq!(store.undecided(None, 2).await.unwrap().0, [], "its attach is in flight");
    sqlx::query("UPDATE step SET state = 'done', done_at = now()").execute(store.pool()).await.unwrap();
    begin(store.pool(), order, MAIL, 0).await;
    assert_eq!(store.undecided(None, 2).await.unwrap().0, [order]);
}

#[tokio::test]
async fn an_order_that_cannot_be_read_keeps_no_other_from_being_sent_again() {
    let stage = Stage::set().await;
    let node = stage.node(EAGER).await;
    stage.payments.set(PaymentAction::Authorise, Manner::Mute);
    let (spoilt, other) = (stage.cart(), stage.cart());
    let _waits = [&spoilt, &other].map(|cart| tokio::spawn(node.placing(cart, 10_000).send()));
    let begun = async || -> i64 {
        let begun = sqlx::query_scalar("SELECT count(*) FROM step WHERE kind = 'authorise'");
        begun.fetch_one(stage.database.pool()).await.unwrap()
    };
    eventually(PATIENCE, async || begun().await == 2).await;
    let spoil = sqlx::query("UPDATE orders SET currency = '?' WHERE hold_id = $1");
    spoil.bind(spoilt.hold.uuid()).execute(stage.database.pool()).await.unwrap();
    let attempts = async || -> i32 {
        let attempts = "SELECT attempt FROM step JOIN orders USING (order_id)
            WHERE hold_id = $1 AND kind = 'authorise'";
        let attempts = sqlx::query_scalar(attempts).bind(other.hold.uuid());
        attempts.fetch_one(stage.database.pool()).await.unwrap()
    };
    let before = attempts().await;
    eventually(PATIENCE, async || attempts().await >= before + 3).await;
}
