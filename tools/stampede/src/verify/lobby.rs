//! Rule 11: the lobby's line, its slots, and what was held with its passes.

use std::collections::HashMap;

use anyhow::Result;
use futures::TryStreamExt;
use stampede_contracts::{PassId, SessionId, ShowId};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::picture::{Forgotten, Hold, Holds};
use super::report::Found;
use super::snapshot::{Snapshots, count, find};

/// The times in rows are those at which transactions began, and two that wait for each other may have begun in the
/// other order. A lock is waited for at most this long.
const TOLERANCE: Duration = Duration::SECOND;
/// Inventory forgets passes after a day.
const PASSES_KEPT_FOR: Duration = Duration::hours(23);

pub(super) async fn check(now: &mut Snapshots, holds: &Holds, forgotten: &Forgotten) -> Result<Found> {
    let mut found = Found::default();
    count(&mut found, &mut now.lobby, "places", "SELECT count(*) FROM place").await?;
    for query in [NUMBERS, OUT_OF_ORDER, PASSED_OVER, TWO_PLACES, TOO_MANY_SLOTS] {
        find(&mut found, &mut now.lobby, now.cutoff, query).await?;
    }
    find(&mut found, &mut now.inventory, now.cutoff, TWO_HOLDS).await?;
    let slots = slots(now).await?;
    found.checked(slots.len(), "slots");
    let holds = holds.values().filter(|hold| !forgotten.lines.contains(&hold.show.uuid()));
    held_with_passes(&mut found, &slots, holds);
    freed_early(&mut found, now, &slots).await?;
    Ok(found)
}

/// Numbers are given one after the other, and each to one place.
const NUMBERS: &str = "
    SELECT format('show shw_%s has given %s numbers, and %s places have one, up to %s',
        replace(show.show_id::text, '-', ''), numbered, coalesce(places, 0), coalesce(highest, 0))
    FROM show LEFT JOIN (
        SELECT show_id, count(DISTINCT number) AS places, max(number) AS highest
        FROM place WHERE number IS NOT NULL GROUP BY show_id
    ) AS given USING (show_id)
    WHERE history = 'kept' AND (numbered <> coalesce(places, 0) OR numbered <> coalesce(highest, 0))
    UNION ALL
    SELECT format('number %s of show shw_%s was given %s times', number, replace(show_id::text, '-', ''), count(*))
    FROM place WHERE number IS NOT NULL GROUP BY show_id, number HAVING count(*) > 1";

const OUT_OF_ORDER: &str = "
    SELECT format('number %s of show shw_%s was called at %s, after a higher one at %s', number,
        replace(show_id::text, '-', ''), admitted_at, earliest)
    FROM (
        SELECT show_id, number, admitted_at, min(admitted_at) OVER (
            PARTITION BY show_id ORDER BY number ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) AS earliest
        FROM place WHERE admitted_at IS NOT NULL
    ) AS called
    WHERE admitted_at > earliest + interval '1 second'";

const PASSED_OVER: &str = "
    SELECT format('number %s of show shw_%s still waits, and number %s was called', number,
        replace(show_id::text, '-', ''), called)
    FROM place JOIN (
        SELECT show_id, max(number) AS called FROM place WHERE admitted_at IS NOT NULL GROUP BY show_id
    ) AS line USING (show_id)
    WHERE state = 'waiting' AND number < called";

const TWO_PLACES: &str = "
    SELECT format('session ses_%s has %s open places in the lobby of show shw_%s: %s',
        replace(session::text, '-', ''), count(*), replace(show_id::text, '-', ''),
        string_agg('lby_' || replace(place_id::text, '-', ''), ', '))
    FROM place WHERE state IN ('early', 'waiting', 'admitted')
    GROUP BY session, show_id HAVING count(*) > 1";

/// How many slots were in use after each admission, now and at any time before.
const TOO_MANY_SLOTS: &str = "
    SELECT format('show shw_%s had %s slots in use at once, at %s, and may have %s', replace(show_id::text, '-', ''),
        max(active), (array_agg(at ORDER BY active DESC))[1], slots_max)
    FROM (
        SELECT show_id, at, sum(change) OVER (PARTITION BY show_id ORDER BY at, change) AS active
        FROM (
            SELECT show_id, admitted_at AS at, 1 AS change FROM place WHERE admitted_at IS NOT NULL
            UNION ALL
            SELECT show_id, ended_at - interval '1 second', -1 FROM place
            WHERE admitted_at IS NOT NULL AND ended_at IS NOT NULL
        ) AS changes
    ) AS history JOIN show USING (show_id)
    WHERE active > slots_max
    GROUP BY show_id, slots_max";

const TWO_HOLDS: &str = "
    SELECT format('session ses_%s has %s live holds of show shw_%s: %s', replace(session::text, '-', ''), count(*),
        replace(show::text, '-', ''), string_agg(format('hld_b%s_%s', block, replace(id::text, '-', '')), ', '))
    FROM hold WHERE state IN ('held', 'attached')
    GROUP BY session, show HAVING count(*) > 1";

/// A shopping slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
struct Slot {
    pass_id: Uuid,
    session: Uuid,
    show_id: Uuid,
    admitted_at: OffsetDateTime,
    pass_expires_at: OffsetDateTime,
    ended_at: Option<OffsetDateTime>,
}

type Slots = HashMap<Uuid, Slot>;

async fn slots(now: &mut Snapshots) -> Result<Slots> {
    let mut rows = sqlx::query_as::<_, Slot>(
        "SELECT pass_id, session, show_id, admitted_at, pass_expires_at, ended_at FROM place
         WHERE pass_id IS NOT NULL AND admitted_at IS NOT NULL AND pass_expires_at IS NOT NULL",
    )
    .fetch(&mut *now.lobby);
    let mut slots = Slots::new();
    while let Some(slot) = rows.try_next().await? {
        slots.insert(slot.pass_id, slot);
    }
    Ok(slots)
}

/// A pass holds seats for its own session and show, in its time.
fn held_with_passes<'a>(found: &mut Found, slots: &Slots, holds: impl Iterator<Item = &'a Hold>) {
    let mut used = 0_u64;
    for hold in holds {
        let Some(pass) = hold.pass else { continue };
        used += 1;
        let why = match slots.get(&pass) {
            None => "which no lobby gave",
            Some(slot) if (slot.session, slot.show_id) != (hold.session.uuid(), hold.show.uuid()) => {
                "which belongs to another session or show"
            }
            Some(slot)
                if hold.created_at + TOLERANCE < slot.admitted_at
                    || hold.created_at > slot.pass_expires_at + TOLERANCE =>
            {
                "outside of its time"
            }
            Some(_) => continue,
        };
        found.broken(format!("hold {} was placed with pass {}, {why}", hold.id, PassId::from_uuid(pass)));
    }
    found.checked(used, "holds with a pass");
}

/// A slot is free again only when inventory has closed its pass, or one second after it ended.
async fn freed_early(found: &mut Found, now: &mut Snapshots, slots: &Slots) -> Result<()> {
    let early: HashMap<Uuid, OffsetDateTime> = slots
        .values()
        .filter_map(|slot| Some((slot, slot.ended_at?)))
        .filter(|(slot, ended_at)| {
            *ended_at <= slot.pass_expires_at
                && *ended_at < now.cutoff
                && *ended_at > now.cutoff - PASSES_KEPT_FOR
        })
        .map(|(slot, ended_at)| (slot.pass_id, ended_at))
        .collect();
    found.checked(early.len(), "slots freed before their time");
    let passes: Vec<Uuid> = early.keys().copied().collect();
    let closed: Vec<(Uuid, OffsetDateTime)> = sqlx::query_as(
        "SELECT pass_id, closed_at FROM pass WHERE pass_id = ANY($1) AND closed_at IS NOT NULL",
    )
    .bind(passes)
    .fetch_all(&mut *now.inventory)
    .await?;
    let closed: HashMap<Uuid, OffsetDateTime> = closed.into_iter().collect();
    for (pass, ended_at) in early {
        if closed.get(&pass).is_none_or(|closed_at| *closed_at > ended_at + TOLERANCE) {
            let slot = slots.get(&pass);
            let show =
                slot.map_or_else(String::new, |slot| format!(" of show {}", ShowId::from_uuid(slot.show_id)));
            let session =
                slot.map_or_else(String::new, |slot| format!(" ({})", SessionId::from_uuid(slot.session)));
            let pass = PassId::from_uuid(pass);
            found.broken(format!(
                "the slot of pass {pass}{show}{session} was freed at {ended_at}, and inventory had not closed it"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::picture::tests::purchase;
    use super::*;

    #[test]
    fn a_pass_is_for_its_holder_its_show_and_its_time() {
        let (_, hold) = purchase();
        let slot = Slot {
            pass_id: Uuid::now_v7(),
            session: hold.session.uuid(),
            show_id: hold.show.uuid(),
            admitted_at: hold.created_at,
            pass_expires_at: hold.created_at + Duration::minutes(5),
            ended_at: None,
        };
        let hold = Hold { pass: Some(slot.pass_id), ..hold };
        let broken = |slot: &Slot, hold: &Hold| {
            let mut found = Found::default();
            let (slots, holds) =
                (Slots::from([(slot.pass_id, *slot)]), Holds::from([(hold.id.uuid(), hold.clone())]));
            held_with_passes(&mut found, &slots, holds.values());
            found.broken
        };
        assert_eq!(broken(&slot, &hold), 0);
        assert_eq!(broken(&Slot { session: Uuid::now_v7(), ..slot }, &hold), 1);
        assert_eq!(broken(&Slot { show_id: Uuid::now_v7(), ..slot }, &hold), 1);
        assert_eq!(broken(&Slot { pass_id: Uuid::now_v7(), ..slot }, &hold), 1);
        let late = Hold { created_at: slot.pass_expires_at + Duration::minutes(1), ..hold };
        assert_eq!(broken(&slot, &late), 1);
    }
}
