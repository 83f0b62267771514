//! Rules 1 and 2: no seat twice, and every place accounted for — in the tickets, in the seats' letters, in the
//! holds, in the counters, and at every version of the journal.

use std::collections::HashMap;

use anyhow::Result;
use futures::TryStreamExt;
use sqlx::types::Json;
use stampede_contracts::SectionId;
use stampede_contracts::event::Seating;
use uuid::Uuid;

use super::report::Found;
use super::snapshot::{Snapshots, count, find};

/// Rule 1.
pub(super) async fn once(now: &mut Snapshots) -> Result<Found> {
    let mut found = Found::default();
    count(&mut found, &mut now.orders, "valid tickets", "SELECT count(*) FROM ticket WHERE state = 'valid'")
        .await?;
    count(
        &mut found,
        &mut now.inventory,
        "seats ever held",
        "SELECT coalesce(sum(cardinality(seats)), 0)::bigint FROM hold",
    )
    .await?;
    find(&mut found, &mut now.orders, now.cutoff, TWO_TICKETS).await?;
    find(&mut found, &mut now.inventory, now.cutoff, TWO_HOLDS).await?;
    find(&mut found, &mut now.inventory, now.cutoff, TWO_HOLDS_ONCE).await?;
    Ok(found)
}

const TWO_TICKETS: &str = "
    SELECT format('seat %s of show shw_%s has %s valid tickets: %s', seat, replace(show_id::text, '-', ''), count(*),
        string_agg(format('tkt_%s of ord_%s', replace(ticket_id::text, '-', ''), replace(order_id::text, '-', '')),
            ', ' ORDER BY created_at))
    FROM ticket WHERE state = 'valid' AND seat IS NOT NULL
    GROUP BY show_id, seat HAVING count(*) > 1";

const TWO_HOLDS: &str = "
    SELECT format('seat b%s-%s has %s holds at once: %s', block, seat, count(*),
        string_agg(format('hld_b%s_%s (%s)', block, replace(id::text, '-', ''), state), ', ' ORDER BY created_at))
    FROM hold CROSS JOIN unnest(seats) AS seat
    WHERE state <> 'freed'
    GROUP BY block, seat HAVING count(*) > 1";

/// Between being taken and given back by one hold a seat is taken by no other, whatever it is now. The order is the
/// journal's.
const TWO_HOLDS_ONCE: &str = "
    SELECT format('seat b%s-%s was taken by hld_b%s_%s in version %s, while hld_b%s_%s had it', block, seat,
        block, replace(hold::text, '-', ''), version, block, replace(holder::text, '-', ''))
    FROM (
        SELECT j.block, seat, j.version, j.hold, j.from_state,
            lag(j.hold) OVER before AS holder, lag(j.to_state) OVER before AS last
        FROM journal j JOIN hold h ON h.id = j.hold CROSS JOIN unnest(h.seats) AS seat
        WHERE j.from_state = 'free' OR j.to_state = 'free'
        WINDOW before AS (PARTITION BY j.block, seat ORDER BY j.version)
    ) AS changes
    WHERE from_state = 'free' AND last <> 'free'";

/// Rule 2.
pub(super) async fn accounted_for(now: &mut Snapshots) -> Result<Found> {
    let mut found = Found::default();
    let inventory = &mut now.inventory;
    count(&mut found, inventory, "places", "SELECT coalesce(sum(capacity), 0)::bigint FROM block").await?;
    count(&mut found, inventory, "blocks", "SELECT count(*) FROM block").await?;
    count(&mut found, inventory, "holds", "SELECT count(*) FROM hold WHERE state <> 'freed'").await?;
    for query in [COUNTERS, LETTERS, HOLDS, SEATS_OF_HOLDS, HOLDS_OF_NOTHING, EVER_TAKEN] {
        find(&mut found, inventory, now.cutoff, query).await?;
    }
    sections(&mut found, now).await?;
    Ok(found)
}

const COUNTERS: &str = "
    SELECT format('block b%s: %s free + %s held + %s attached + %s sold + %s blocked = %s, and it has %s places',
        id, free, held, attached, sold, blocked, free + held + attached + sold + blocked, capacity)
    FROM block
    WHERE free + held + attached + sold + blocked <> capacity OR least(free, held, attached, sold, blocked) < 0";

const LETTERS: &str = "
    SELECT format('block b%s counts %s free, held, attached, sold and blocked, and its seats are %s', id,
        counted::text, lettered::text)
    FROM (
        SELECT id, ARRAY[free, held, attached, sold, blocked] AS counted,
            ARRAY[
                length(seats) - length(replace(seats, 'f', '')), length(seats) - length(replace(seats, 'h', '')),
                length(seats) - length(replace(seats, 'a', '')), length(seats) - length(replace(seats, 's', '')),
                length(seats) - length(replace(seats, 'b', ''))
            ] AS lettered
        FROM block WHERE seats IS NOT NULL
    ) AS blocks
    WHERE counted <> lettered";

const HOLDS: &str = "
    SELECT format('block b%s counts %s held, %s attached and %s sold places, and its holds have %s, %s and %s',
        b.id, b.held, b.attached, b.sold, coalesce(h.held, 0), coalesce(h.attached, 0), coalesce(h.sold, 0))
    FROM block b LEFT JOIN (
        SELECT block, sum(quantity) FILTER (WHERE state = 'held') AS held,
            sum(quantity) FILTER (WHERE state = 'attached') AS attached,
            sum(quantity) FILTER (WHERE state = 'sold') AS sold
        FROM hold WHERE state <> 'freed' GROUP BY block
    ) AS h ON h.block = b.id
    WHERE (b.held <> coalesce(h.held, 0) OR b.attached <> coalesce(h.attached, 0) OR b.sold <> coalesce(h.sold, 0))
        AND NOT EXISTS (SELECT FROM show s WHERE s.id = b.show AND s.history <> 'kept')";

const SEATS_OF_HOLDS: &str = "
    SELECT format('seat b%s-%s is %L in its block, and hld_b%s_%s that has it is %s', b.id, seat,
        substr(b.seats, seat + 1, 1), b.id, replace(h.id::text, '-', ''), h.state)
    FROM hold h JOIN block b ON b.id = h.block CROSS JOIN unnest(h.seats) AS seat
    WHERE h.state <> 'freed'
        AND substr(b.seats, seat + 1, 1)
            IS DISTINCT FROM CASE h.state WHEN 'held' THEN 'h' WHEN 'attached' THEN 'a' ELSE 's' END";

const HOLDS_OF_NOTHING: &str = "
    SELECT format('hld_b%s_%s lies in a block that there is not', h.block, replace(h.id::text, '-', ''))
    FROM hold h LEFT JOIN block b ON b.id = h.block
    WHERE b.id IS NULL OR (b.show, b.section) <> (h.show, h.section)";

/// General admission has no seats to compare; the journal says how many places were taken at every version.
const EVER_TAKEN: &str = "
    SELECT DISTINCT ON (id) format('block b%s had %s places taken in version %s, and has %s for sale', id, taken,
        history.version, capacity - blocked)
    FROM (
        SELECT j.block, j.version, sum(CASE WHEN j.from_state = 'free' THEN h.quantity
                                            WHEN j.to_state = 'free' THEN -h.quantity ELSE 0 END)
            OVER (PARTITION BY j.block ORDER BY j.version) AS taken
        FROM journal j JOIN hold h ON h.id = j.hold
    ) AS history JOIN block ON block.id = history.block
    WHERE taken > capacity - blocked OR taken < 0
    ORDER BY id, history.version";

/// What inventory laid out is what catalog planned.
async fn sections(found: &mut Found, now: &mut Snapshots) -> Result<()> {
    let mut planned = HashMap::new();
    let mut rows = sqlx::query_as::<_, (Uuid, Json<Seating>)>("SELECT section_id, seating FROM section")
        .fetch(&mut *now.catalog);
    while let Some((section, seating)) = rows.try_next().await? {
        planned.insert(section, seating.0.capacity());
    }
    let laid_out: Vec<(Uuid, i64)> =
        sqlx::query_as("SELECT section, sum(capacity)::bigint FROM block GROUP BY section")
            .fetch_all(&mut *now.inventory)
            .await?;
    found.checked(laid_out.len(), "sections");
    for (id, capacity) in laid_out {
        let plan = planned.get(&id).copied();
        if plan != u64::try_from(capacity).ok() {
            let plan = plan.map_or_else(|| "does not know it".to_owned(), |plan| format!("planned {plan}"));
            let section = SectionId::from_uuid(id);
            found.broken(format!("section {section} has {capacity} places in inventory, and catalog {plan}"));
        }
    }
    Ok(())
}
