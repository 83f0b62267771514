//! The ledger, and comparing it with the provider's.

use std::time::Duration;

use stampede_contracts::command::PaymentAction::Capture;
use stampede_psp_sim::card::Card;
use stampede_psp_sim::domain::Request;

use crate::orders::{about, authorise, price, reference};
use crate::support::World;

async fn purchase(world: &World) -> String {
    let command = authorise(world.orders.place(Card::Works));
    world.orders.settle(&command).await;
    reference(&world.orders.settle(&about(&command, Capture)).await).to_owned()
}

#[tokio::test]
async fn the_database_refuses_books_that_do_not_balance() {
    let (world, _replica) = World::start().await;
    let command = authorise(world.orders.place(Card::Works));
    world.orders.settle(&command).await;
    let lopsided = sqlx::query(
        "INSERT INTO entry (step_id, account, amount, currency)
         VALUES ($1, 'receivable:psp', 100, 'EUR'), ($1, 'sales', -99, 'EUR')",
    );
    let error = lopsided.bind(command.step_id.uuid()).execute(world.database.pool()).await.unwrap_err();
    assert!(error.to_string().contains("do not sum to zero"), "{error}");
    let two_currencies = sqlx::query(
        "INSERT INTO entry (step_id, account, amount, currency)
         VALUES ($1, 'receivable:psp', 100, 'EUR'), ($1, 'sales', -100, 'USD')",
    );
    two_currencies.bind(command.step_id.uuid()).execute(world.database.pool()).await.unwrap_err();
}

#[tokio::test]
async fn what_was_booked_stays() {
    let (world, _replica) = World::start().await;
    purchase(&world).await;
    for sql in ["UPDATE entry SET amount = 0", "DELETE FROM entry", "TRUNCATE entry"] {
        let error = sqlx::query(sql).execute(world.database.pool()).await.unwrap_err();
        assert!(error.to_string().contains("only added to"), "{error}");
    }
    world.check().await;
}

#[tokio::test]
async fn a_charge_of_the_provider_that_we_do_not_know_is_found() {
    let (world, _replica) = World::start().await;
    purchase(&world).await;
    let request = Request::Authorise {
        card_token: Card::Works.token(),
        amount: price(),
        reference: "ord_ghost".to_owned(),
    };
    world.sim.perform("ghost", request).await;
    let report = world.reconcile(Duration::ZERO).await;
    assert_eq!((report.compared, report.difference_count), (3, 1), "{report}");
    assert!(report.to_string().contains("ghost"), "{report}");
}

#[tokio::test]
async fn a_sale_of_ours_that_the_provider_does_not_know_is_found() {
    let (world, _replica) = World::start().await;
    let capture = purchase(&world).await;
    sqlx::query("DELETE FROM webhook").execute(world.psp_database.pool()).await.unwrap();
    let forgotten = sqlx::query("DELETE FROM operation WHERE id = $1").bind(&capture);
    forgotten.execute(world.psp_database.pool()).await.unwrap();
    let report = world.reconcile(Duration::ZERO).await;
    assert_eq!(report.difference_count, 1, "{report}");
    assert!(report.to_string().contains(&capture), "{report}");
}

#[tokio::test]
async fn another_amount_and_a_missing_entry_are_found() {
    let (world, _replica) = World::start().await;
    purchase(&world).await;
    let cheaper = "UPDATE operation SET amount = amount - 1 WHERE status = 'captured'";
    sqlx::query(cheaper).execute(world.psp_database.pool()).await.unwrap();
    assert_eq!(world.reconcile(Duration::ZERO).await.difference_count, 1);

    let dearer = "UPDATE operation SET amount = amount - 1 WHERE action = 'capture'";
    sqlx::query(dearer).execute(world.database.pool()).await.unwrap();
    let report = world.reconcile(Duration::ZERO).await;
    assert!(
        report.to_string().contains("entries do not fit"),
        "the amounts agree, the entries do not: {report}"
    );
}

#[tokio::test]
async fn what_is_young_is_left_out() {
    let (world, _replica) = World::start().await;
    purchase(&world).await;
    let report = world.reconcile(Duration::from_secs(3_600)).await;
    assert_eq!((report.compared, report.left_out), (0, 2), "{report}");
    assert!(report.agrees());
    let report = world.reconcile(Duration::ZERO).await;
    assert_eq!((report.compared, report.left_out), (2, 0), "{report}");
    assert!(report.to_string().contains("45.00 EUR"), "{report}");
}
