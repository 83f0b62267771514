//! The line, while holders of places leave it, and behind places whose holders left silently.

use stampede_contracts::api::Place;
use stampede_lobby::{domain::Stock, store::Called};
use stampede_postgres::{PgPool, Transaction};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
/// The line was heard without a break for longer than a holder may be silent.
pub(super) const HEARD_LONG: &str = "UPDATE show SET heard_from = now() - interval '1 hour'";

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
    sqlx::query(HEARD_LONG).execute(pool).await.unwrap();
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
    sqlx::query(HEARD_LONG).execute(pool).await.unwrap();
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
    let last = "UPDATE place SET seen_at = now() - interval '10 minutes' WHERE number < 45";
    assert_eq!(call(last).await, (4, 1), "fewer than may be called");
}

/// A line of `count` holders who were seen just now, made by one statement.
async fn crowd(stage: &Stage, state: &str, count: i64) -> ShowId {
    let show = stage.show(Duration::ZERO, 10, (100, 0)).await;
    if state == "waiting" {
        stage.store.draw(show).await.unwrap();
    }
    let insert = "INSERT INTO place (place_id, show_id, session, state, number)
                  SELECT gen_random_uuid(), $1, gen_random_uuid(), $2, CASE WHEN $2 = 'waiting' THEN number END
                  FROM generate_series(1, $3) AS number";
    let insert = sqlx::query(insert).bind(show.uuid()).bind(state).bind(count);
    insert.execute(stage.database.pool()).await.unwrap();
    show
}

async fn numbers(stage: &Stage, state: &str) -> Vec<i64> {
    let select = "SELECT number FROM place WHERE state = $1 ORDER BY number";
    sqlx::query_scalar(select).bind(state).fetch_all(stage.database.pool()).await.unwrap()
}

#[tokio::test]
async fn after_an_outage_no_place_is_abandoned_and_the_line_keeps_its_order() {
    // What was unavailable: the database or the lobby, so there were no looks, or the gateway, so there were no polls.
    for outage in ["allowance_at = now() - interval '3 minutes'", "allowance = 0"] {
        let stage = Stage::start().await;
        let show = crowd(&stage, "waiting", 50).await;
        let (pool, stock) = (stage.database.pool(), stage.app.stock().of(show));
        let run = async |sql: &str| {
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(pool).await.unwrap();
        };
        let call = async || {
            let called = stage.store.call(show, stock, 2 * MINUTE).await.unwrap();
            (called.admitted.len(), called.ended)
        };
        run(HEARD_LONG).await;
        run("UPDATE place SET seen_at = now() - interval '3 minutes'").await;
        run(&format!("UPDATE show SET {outage}")).await;
        assert_eq!(call().await, (0, 0), "no holder polls yet: {outage}");
        // The first poll after it comes from the end of the line.
        run("UPDATE place SET seen_at = now() WHERE number = 50").await;
        run("UPDATE show SET allowance = 1000").await;
        assert_eq!(call().await, (10, 0), "{outage}");
        assert_eq!(numbers(&stage, "admitted").await, Vec::from_iter(1..=10), "{outage}");
        // Holders who have not polled again are passed over.
        run(HEARD_LONG).await;
        run("UPDATE place SET state = 'left' WHERE state = 'admitted'").await;
        run("UPDATE show SET allowance = 1000").await;
        assert_eq!(call().await, (1, 39), "{outage}");
    }
}

#[tokio::test]
async fn a_first_poll_before_the_first_look_after_an_outage_costs_no_place() {
    let stage = Stage::start().await;
    let show = crowd(&stage, "waiting", 50).await;
    let (pool, stock) = (stage.database.pool(), stage.app.stock().of(show));
    for change in [
        HEARD_LONG,
        "UPDATE show SET allowance_at = now() - interval '3 minutes'",
        "UPDATE place SET seen_at = now() - interval '3 minutes' WHERE number < 50",
    ] {
        sqlx::query(change).execute(pool).await.unwrap();
    }
    // Not even while the stock is unknown, as it is after the start of a lobby.
    assert_eq!(stage.store.call(show, None, 2 * MINUTE).await.unwrap(), Called::default());
    let called = stage.store.call(show, stock, 2 * MINUTE).await.unwrap();
    assert_eq!(called.ended, 0);
    assert_eq!(numbers(&stage, "waiting").await.len() + called.admitted.len(), 50);
    assert_eq!(numbers(&stage, "admitted").await, Vec::from_iter(1..=called.admitted.len() as i64));
}

#[tokio::test]
async fn one_look_ends_a_bounded_number_of_places_and_the_next_one_more() {
    let stage = Stage::start().await;
    let show = crowd(&stage, "waiting", 1_003).await;
    let (pool, plenty) = (stage.database.pool(), stage.app.stock().of(show));
    sqlx::query(HEARD_LONG).execute(pool).await.unwrap();
    let gone = "UPDATE place SET seen_at = now() - interval '10 minutes' WHERE number < 1003";
    sqlx::query(gone).execute(pool).await.unwrap();
    sqlx::query("UPDATE show SET allowance = 1000").execute(pool).await.unwrap();
    let look = async |stock| {
        let called = stage.store.call(show, stock, 2 * MINUTE).await.unwrap();
        (called.admitted.len(), called.ended, called.sold_out)
    };
    assert_eq!(look(plenty).await, (1, 1_000, 0));
    assert_eq!(look(plenty).await, (0, 0, 0), "without a poll silence does not count");
    sqlx::query("UPDATE place SET seen_at = now(), state = 'waiting' WHERE state = 'expired'")
        .execute(pool)
        .await
        .unwrap();
    let nothing = Some(Stock::default());
    assert_eq!(look(nothing).await, (0, 0, 1_000));
    assert_eq!(numbers(&stage, "waiting").await, [1, 2], "those in front are last");
    assert_eq!(look(nothing).await, (0, 0, 2));
}

#[tokio::test]
async fn a_large_crowd_is_drawn_in_the_order_of_its_hashes() {
    let stage = Stage::start().await;
    let show = crowd(&stage, "early", 10_001).await;
    assert_eq!(stage.store.draw(show).await.unwrap(), 10_001);
    let wrong = "SELECT count(*) FROM (
                     SELECT number, row_number() OVER (ORDER BY sha256(seed || uuid_send(place_id))) AS rank
                     FROM place JOIN show USING (show_id)) AS drawn
                 WHERE number IS DISTINCT FROM rank";
    let wrong: i64 = sqlx::query_scalar(wrong).fetch_one(stage.database.pool()).await.unwrap();
    assert_eq!(wrong, 0);
}

#[tokio::test]
async fn an_outage_at_one_show_does_not_keep_the_buyers_of_another_waiting() {
    let stage = Stage::start().await;
    let stuck = crowd(&stage, "waiting", 1).await;
    let show = stage.show(Duration::ZERO, 1, (100, 0)).await;
    stage.store.draw(show).await.unwrap();
    let fails = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN RAISE EXCEPTION 'too slow' USING ERRCODE = '57014'; END $$";
    for sql in [
        fails.to_owned(),
        format!(
            "CREATE TRIGGER fail BEFORE UPDATE ON show FOR EACH ROW WHEN (OLD.show_id = '{}') EXECUTE FUNCTION fail()",
            stuck.uuid()
        ),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(stage.database.pool()).await.unwrap();
    }
    let session = SessionId::new();
    let (place, _) = stage.app.join(show, session).await.unwrap();
    let error = stage.app.clone().call_people(CancellationToken::new()).await.unwrap_err();
    assert!(is_outage(error.as_ref()), "{error}");
    assert_eq!(stage.state(&place, session).await, PlaceState::Admitted);
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
