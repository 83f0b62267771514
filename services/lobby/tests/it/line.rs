//! The line, while holders of places leave it, and behind places whose holders left silently.

use stampede_contracts::api::Place;
use stampede_postgres::{PgPool, Transaction};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Waits until `count` statements wait for a lock.
pub(super) async fn until_waiting(pool: &PgPool, count: i64) {
    eventually(PATIENCE, async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(pool).await.unwrap() == count
    })
    .await;
}

/// A transaction that has executed `sql` with this parameter and not committed: it holds the row's lock.
async fn about_to(pool: &PgPool, sql: &'static str, id: uuid::Uuid) -> Transaction {
    let mut tx = pool.begin().await.unwrap();
    assert_eq!(sqlx::query(sql).bind(id).execute(&mut *tx).await.unwrap().rows_affected(), 1);
    tx
}

const LEAVE: &str = "UPDATE place SET state = 'left', ended_at = now() WHERE place_id = $1";

async fn joins(stage: &Stage, show: ShowId, count: usize) -> Vec<(Place, SessionId)> {
    let mut line = Vec::new();
    for _ in 0..count {
        let session = SessionId::new();
        line.push((stage.app.join(show, session).await.unwrap().0, session));
    }
    line
}

#[tokio::test]
async fn who_leaves_while_the_draw_is_held_is_not_drawn_and_leaves_no_gap() {
    let stage = Stage::start().await;
    let show = stage.show(MINUTE, 0, (100, 0)).await;
    let line = joins(&stage, show, 5).await;
    let pool = stage.database.pool();
    sqlx::query("UPDATE show SET sale_opens_at = now()").execute(pool).await.unwrap();
    let leaving = about_to(pool, LEAVE, line[0].0.lobby_ticket.uuid()).await;
    let store = stage.store.clone();
    let draw = tokio::spawn(async move { store.draw(show).await.unwrap() });
    until_waiting(pool, 1).await;
    leaving.commit().await.unwrap();
    assert_eq!(draw.await.unwrap(), 4);
    assert_eq!(stage.state(&line[0].0, line[0].1).await, PlaceState::Left);
    let mut numbers = Vec::new();
    for (place, session) in joins(&stage, show, 1).await.iter().chain(&line[1..]) {
        numbers.push(stage.app.place(place.lobby_ticket, *session).await.unwrap().number.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn who_leaves_while_people_are_called_is_neither_called_nor_passed_over() {
    let stage = Stage::start().await;
    let show = stage.show(Duration::ZERO, 1, (100, 0)).await;
    stage.store.draw(show).await.unwrap();
    let line = joins(&stage, show, 3).await;
    let pool = stage.database.pool();
    let gone = "UPDATE place SET seen_at = now() - interval '10 minutes' WHERE number = 1";
    sqlx::query(gone).execute(pool).await.unwrap();
    sqlx::query("UPDATE show SET allowance = 10").execute(pool).await.unwrap();
    // One who was abandoned and one whose turn it is leave in the moment in which the line is looked at.
    let (abandoned, next) = (&line[0], &line[1]);
    let next_leaves = about_to(pool, LEAVE, next.0.lobby_ticket.uuid()).await;
    let abandoned_leaves = about_to(pool, LEAVE, abandoned.0.lobby_ticket.uuid()).await;
    let (store, stock) = (stage.store.clone(), stage.app.stock().of(show));
    let call = tokio::spawn(async move { store.call(show, stock, MINUTE).await.unwrap() });
    until_waiting(pool, 1).await;
    next_leaves.commit().await.unwrap();
    // The call may wait for the one after the other.
    abandoned_leaves.commit().await.unwrap();
    let called = call.await.unwrap();
    assert_eq!((called.admitted.len(), called.ended), (1, 0));
    let states = [
        stage.state(&abandoned.0, abandoned.1).await,
        stage.state(&next.0, next.1).await,
        stage.state(&line[2].0, line[2].1).await,
    ];
    assert_eq!(states, [PlaceState::Left, PlaceState::Left, PlaceState::Admitted]);
}

#[tokio::test]
async fn who_is_called_was_heard_of_however_many_in_front_were_not() {
    let stage = Stage::start().await;
    let show = stage.show(Duration::ZERO, 10, (100, 0)).await;
    stage.store.draw(show).await.unwrap();
    joins(&stage, show, 45).await;
    let (pool, stock) = (stage.database.pool(), stage.app.stock().of(show));
    let call = async |unseen: &'static str| {
        sqlx::query(unseen).execute(pool).await.unwrap();
        sqlx::query("UPDATE show SET allowance = 1000").execute(pool).await.unwrap();
        let called = stage.store.call(show, stock, MINUTE).await.unwrap();
        sqlx::query("UPDATE place SET state = 'expired' WHERE state = 'admitted'")
            .execute(pool)
            .await
            .unwrap();
        (called.ended, called.admitted.len())
    };
    let unseen = "UPDATE place SET seen_at = now() - interval '10 minutes' WHERE number <= 20 OR number = 35";
    assert_eq!(
        call(unseen).await,
        (20, 10),
        "twenty in front are gone, and the one behind may still come back"
    );
    assert_eq!(call("UPDATE place SET seen_at = now() WHERE number = 35").await, (0, 10));
    let rest = "UPDATE place SET seen_at = now() - interval '10 minutes' WHERE state = 'waiting'";
    assert_eq!(call(rest).await, (5, 0), "abandoned places do not stay indefinitely");
}

#[tokio::test]
async fn a_show_that_is_moved_while_it_is_found_to_be_over_is_not_forgotten() {
    let stage = Stage::start().await;
    let show = stage.show(Duration::ZERO, 10, (100, 0)).await;
    joins(&stage, show, 1).await;
    let pool = stage.database.pool();
    sqlx::query("UPDATE show SET starts_at = now() - interval '2 days'").execute(pool).await.unwrap();
    let moved = "UPDATE show SET starts_at = now() + interval '2 days' WHERE show_id = $1";
    let moving = about_to(pool, moved, show.uuid()).await;
    let store = stage.store.clone();
    let forget = tokio::spawn(async move { store.forget_history(MINUTE, 3).await.unwrap() });
    until_waiting(pool, 1).await;
    moving.commit().await.unwrap();
    assert_eq!(forget.await.unwrap(), 0);
    let history: String = sqlx::query_scalar("SELECT history FROM show").fetch_one(pool).await.unwrap();
    assert_eq!(history, "kept");
}
