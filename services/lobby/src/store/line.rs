//! The line: the draw gives numbers, and whoever's turn it is is called.

use std::time::Duration;

use stampede_contracts::{ShowId, Timestamp};
use stampede_postgres::PgConnection;

use super::Store;
use crate::domain::{Allowance, Decision, Stock, decide};

/// Places that one statement of the draw numbers.
const DRAWN_AT_ONCE: i64 = 10_000;
/// Places that one look at a line ends, as abandoned or as sold out; the next look ends more.
const ENDED_AT_ONCE: i64 = 1_000;

/// What a look at a line did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Called {
    /// How long everybody waited who was admitted now.
    pub admitted: Vec<Duration>,
    /// How many were told that it is sold out.
    pub sold_out: u64,
    /// How many slots ended or places were given up.
    pub ended: u64,
}

impl Store {
    /// Holds the draw if it is due and was not held: everybody who is here gets a number in the order of
    /// SHA-256(seed ‖ lobby ticket), which anybody can check once the seed is public. Says how many took part.
    ///
    /// Places are locked before they are numbered: after a wait for a row Postgres looks again only at the conditions
    /// of the statement that locks it, so a place whose holder leaves meanwhile is neither drawn nor counted. One transaction
    /// draws them all, in statements that end in time however many came.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn draw(&self, show_id: ShowId) -> Result<u64, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let due = sqlx::query_scalar!(
            "SELECT show_id FROM show WHERE show_id = $1 AND drawn_at IS NULL AND sale_opens_at <= now() FOR UPDATE",
            show_id.uuid(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        if due.is_none() {
            return Ok(0);
        }
        let mut drawn = 0_i64;
        loop {
            let next = sqlx::query!(
                "WITH here AS (
                     SELECT place_id, sha256(seed || uuid_send(place_id)) AS rank
                     FROM place JOIN show USING (show_id) WHERE show_id = $1 AND state = 'early'
                     ORDER BY rank LIMIT $2 FOR UPDATE OF place
                 )
                 UPDATE place SET state = 'waiting', number = $3 + drawn.number
                 FROM (SELECT place_id, row_number() OVER (ORDER BY rank) AS number FROM here) AS drawn
                 WHERE place.place_id = drawn.place_id",
                show_id.uuid(),
                DRAWN_AT_ONCE,
                drawn,
            );
            match next.execute(&mut *tx).await?.rows_affected() {
                0 => break,
                more => drawn += more.cast_signed(),
            }
        }
        sqlx::query!(
            "UPDATE show SET drawn_at = now(), numbered = $2, allowance_at = now(), heard_from = now() WHERE show_id = $1",
            show_id.uuid(),
            drawn,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(drawn.unsigned_abs())
    }

    /// One look at the line of a show: slots that are over end, as many are called as may be, and holders who are silent
    /// for longer than `abandoned_after` are passed over. With several replicas one looks and the others continue with the
    /// next show.
    ///
    /// Silence counts only while the line can be heard. After a third of `abandoned_after` without a look (the lobby or its
    /// database was unavailable) or without a poll from any holder (perhaps the gateway was) it is counted from zero. No one
    /// is called before the first poll.
    ///
    /// # Errors
    /// When the database did not answer as it should.
    pub async fn call(
        &self,
        show_id: ShowId,
        stock: Option<Stock>,
        abandoned_after: Duration,
    ) -> Result<Called, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let locked = sqlx::query!(
            r#"SELECT rate_per_second AS "rate!", slots_max AS "slots_max!", slot_seconds AS "slot_seconds!",
                      allowance, extract(epoch FROM now() - allowance_at)::float8 AS "elapsed!",
                      heard_from < now() - $2::interval AS "is_heard_long!",
                      EXISTS (SELECT FROM place WHERE place.show_id = show.show_id AND state = 'waiting'
                                                  AND seen_at >= now() - $3::interval) AS "is_heard!"
               FROM show WHERE show_id = $1 AND drawn_at IS NOT NULL AND opens_at IS NOT NULL FOR UPDATE SKIP LOCKED"#,
            show_id.uuid(),
            abandoned_after as _,
            (abandoned_after / 3) as _,
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(show) = locked else { return Ok(Called::default()) };
        // A slot is free again one second after its pass ended: until then a clock may still think it valid.
        let ended = sqlx::query!(
            "UPDATE place SET state = 'expired', ended_at = now()
             WHERE show_id = $1 AND state = 'admitted' AND pass_expires_at < now() - interval '1 second'",
            show_id.uuid(),
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        let mut called = Called { ended, ..Called::default() };
        let rate = u32::try_from(show.rate).unwrap_or(1);
        let elapsed = Duration::try_from_secs_f64(show.elapsed).unwrap_or_default();
        let was_deaf = !show.is_heard || elapsed > abandoned_after / 3;
        let is_judged = show.is_heard_long && !was_deaf;
        let line = Line { show_id, abandoned_after: is_judged.then_some(abandoned_after) };
        let mut allowance = Allowance { people: show.allowance }.after(elapsed, rate);
        if let Some(stock) = stock {
            let slots_free = slots_free(&mut tx, show_id, show.slots_max).await?;
            match decide(stock, allowance, slots_free) {
                Decision::SoldOut => called.sold_out = sold_out(&mut tx, show_id).await?,
                Decision::Admit(people) if people > 0 && show.is_heard => {
                    called.admitted = admit(&mut tx, line, people, show.slot_seconds).await?;
                    allowance = allowance.without(u32::try_from(called.admitted.len()).unwrap_or(people));
                }
                Decision::Admit(_) => {}
            }
            called.ended += pass_over(&mut tx, line).await?;
        }
        let left = allowance.people;
        sqlx::query!(
            "UPDATE show SET allowance = $2, allowance_at = now(), heard_from = CASE WHEN $3 THEN now() ELSE heard_from END
             WHERE show_id = $1",
            show_id.uuid(),
            left,
            was_deaf,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(called)
    }
}

async fn slots_free(
    connection: &mut PgConnection,
    show_id: ShowId,
    slots_max: i32,
) -> Result<u32, sqlx::Error> {
    let used = sqlx::query_scalar!(
        r#"SELECT count(*) AS "used!" FROM place WHERE show_id = $1 AND state = 'admitted'"#,
        show_id.uuid()
    )
    .fetch_one(connection)
    .await?;
    Ok(u32::try_from(i64::from(slots_max) - used).unwrap_or(0))
}

/// From the end of the line: those in front are the last to go, should seats come back in between.
async fn sold_out(connection: &mut PgConnection, show_id: ShowId) -> Result<u64, sqlx::Error> {
    let told = sqlx::query!(
        "WITH last AS (
             SELECT place_id FROM place WHERE show_id = $1 AND state = 'waiting' ORDER BY number DESC LIMIT $2 FOR UPDATE
         )
         UPDATE place SET state = 'sold_out', ended_at = now() FROM last WHERE place.place_id = last.place_id",
        show_id.uuid(),
        ENDED_AT_ONCE,
    );
    Ok(told.execute(connection).await?.rows_affected())
}

/// The line of a show, and how long its holders may be silent; `None` while that cannot be judged.
#[derive(Clone, Copy)]
struct Line {
    show_id: ShowId,
    abandoned_after: Option<Duration>,
}

/// Ends abandoned places in front of the highest number that was called.
async fn pass_over(connection: &mut PgConnection, line: Line) -> Result<u64, sqlx::Error> {
    let ended = sqlx::query!(
        "WITH abandoned AS (
             SELECT place_id FROM place
             WHERE show_id = $1 AND state = 'waiting' AND seen_at < now() - $2::interval
                   AND number < (SELECT serving FROM show WHERE show_id = $1)
             ORDER BY number LIMIT $3 FOR UPDATE
         )
         UPDATE place SET state = 'expired', ended_at = now() FROM abandoned WHERE place.place_id = abandoned.place_id",
        line.show_id.uuid(),
        line.abandoned_after as _,
        ENDED_AT_ONCE,
    );
    Ok(ended.execute(connection).await?.rows_affected())
}

/// Calls the next `people` whose places are not abandoned, in the order of their numbers. Returns how long each has waited.
async fn admit(
    connection: &mut PgConnection,
    line: Line,
    people: u32,
    slot_seconds: i32,
) -> Result<Vec<Duration>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"WITH next AS (
               SELECT place_id FROM place
               WHERE show_id = $1 AND state = 'waiting' AND (seen_at < now() - $4::interval) IS NOT TRUE
               ORDER BY number LIMIT $2 FOR UPDATE
           ), called AS (
               UPDATE place SET state = 'admitted', admitted_at = now(), pass_id = gen_random_uuid(),
                                pass_expires_at = now() + make_interval(secs => $3)
               FROM next WHERE place.place_id = next.place_id RETURNING number, joined_at
           ), serving AS (
               UPDATE show SET serving = greatest(serving, (SELECT max(number) FROM called))
               WHERE show_id = $1 AND EXISTS (SELECT FROM called)
           )
           SELECT joined_at, now() AS "now!" FROM called"#,
        line.show_id.uuid(),
        i64::from(people),
        f64::from(slot_seconds),
        line.abandoned_after as _,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| Timestamp::from(row.now).since(row.joined_at.into())).collect())
}
