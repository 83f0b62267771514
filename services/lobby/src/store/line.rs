//! The line: the draw gives numbers, and whoever's turn it is is called.

use std::time::Duration;

use stampede_contracts::{ShowId, Timestamp};
use stampede_postgres::PgConnection;

use super::Store;
use crate::domain::{Allowance, Decision, Stock, decide};

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
    /// of the statement that locks it, so a place whose holder leaves meanwhile is neither drawn nor counted.
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
        let drawn = sqlx::query!(
            "WITH here AS (
                 SELECT place_id FROM place WHERE show_id = $1 AND state = 'early' FOR UPDATE
             )
             UPDATE place SET state = 'waiting', number = drawn.number
             FROM (SELECT place_id, row_number() OVER (ORDER BY sha256(show.seed || uuid_send(place_id))) AS number
                   FROM here JOIN show ON show.show_id = $1) AS drawn
             WHERE place.place_id = drawn.place_id",
            show_id.uuid(),
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        sqlx::query!(
            "UPDATE show SET drawn_at = now(), numbered = $2, allowance_at = now() WHERE show_id = $1",
            show_id.uuid(),
            i64::try_from(drawn).unwrap_or(i64::MAX),
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(drawn)
    }

    /// One look at the line of a show: slots that are over end, whoever was not heard of is passed over, and as many
    /// are called as may be. With several replicas one looks and the others go on to the next show.
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
                      allowance, extract(epoch FROM now() - allowance_at)::float8 AS "elapsed!"
               FROM show WHERE show_id = $1 AND drawn_at IS NOT NULL AND opens_at IS NOT NULL FOR UPDATE SKIP LOCKED"#,
            show_id.uuid(),
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
        let mut allowance = Allowance { people: show.allowance }.after(elapsed, rate);
        let Some(stock) = stock else {
            tx.commit().await?;
            return Ok(called);
        };
        let slots_free = slots_free(&mut tx, show_id, show.slots_max).await?;
        match decide(stock, allowance, slots_free) {
            Decision::SoldOut => called.sold_out = sold_out(&mut tx, show_id).await?,
            Decision::Admit(people) if people > 0 => {
                let line = Line { show_id, abandoned_after };
                let (admitted, last) = admit(&mut tx, line, people, show.slot_seconds).await?;
                allowance = allowance.without(u32::try_from(admitted.len()).unwrap_or(people));
                called.ended += pass_over(&mut tx, line, last).await?;
                called.admitted = admitted;
            }
            Decision::Admit(_) => {}
        }
        let left = allowance.people;
        sqlx::query!(
            "UPDATE show SET allowance = $2, allowance_at = now() WHERE show_id = $1",
            show_id.uuid(),
            left,
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

async fn sold_out(connection: &mut PgConnection, show_id: ShowId) -> Result<u64, sqlx::Error> {
    let told = sqlx::query!(
        "UPDATE place SET state = 'sold_out', ended_at = now() WHERE show_id = $1 AND state IN ('early', 'waiting')",
        show_id.uuid(),
    );
    Ok(told.execute(connection).await?.rows_affected())
}

/// The line of a show, and how long its holder may be silent before a place counts as abandoned.
#[derive(Clone, Copy)]
struct Line {
    show_id: ShowId,
    abandoned_after: Duration,
}

/// Ends the places in front of `number` whose holders were not heard of for too long.
async fn pass_over(connection: &mut PgConnection, line: Line, number: i64) -> Result<u64, sqlx::Error> {
    let ended = sqlx::query!(
        "UPDATE place SET state = 'expired', ended_at = now()
         WHERE show_id = $1 AND state = 'waiting' AND number < $2 AND seen_at < now() - $3::interval",
        line.show_id.uuid(),
        number,
        line.abandoned_after as _,
    );
    Ok(ended.execute(connection).await?.rows_affected())
}

/// Calls the next `people` who were heard of lately, in the order of their numbers. Returns how long each has waited, and
/// the last number that was called, or the highest possible one if there were fewer than `people`.
async fn admit(
    connection: &mut PgConnection,
    line: Line,
    people: u32,
    slot_seconds: i32,
) -> Result<(Vec<Duration>, i64), sqlx::Error> {
    let rows = sqlx::query!(
        r#"WITH next AS (
               SELECT place_id FROM place
               WHERE show_id = $1 AND state = 'waiting' AND seen_at >= now() - $4::interval
               ORDER BY number LIMIT $2 FOR UPDATE
           ), called AS (
               UPDATE place SET state = 'admitted', admitted_at = now(), pass_id = gen_random_uuid(),
                                pass_expires_at = now() + make_interval(secs => $3)
               FROM next WHERE place.place_id = next.place_id RETURNING number, joined_at
           ), serving AS (
               UPDATE show SET serving = greatest(serving, (SELECT max(number) FROM called))
               WHERE show_id = $1 AND EXISTS (SELECT FROM called)
           )
           SELECT number AS "number!", joined_at, now() AS "now!" FROM called"#,
        line.show_id.uuid(),
        i64::from(people),
        f64::from(slot_seconds),
        line.abandoned_after as _,
    )
    .fetch_all(connection)
    .await?;
    let are_all = rows.len() < people as usize;
    let last = rows.iter().map(|row| row.number).max().filter(|_| !are_all).unwrap_or(i64::MAX);
    let waited = rows.into_iter().map(|row| Timestamp::from(row.now).since(row.joined_at.into())).collect();
    Ok((waited, last))
}
