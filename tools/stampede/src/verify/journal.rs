//! Rule 5, as far as inventory alone can say: nothing is sold that was not attached to the same order just before, and
//! the journal tells the whole story in one order. Shows that are over for long are left out as soon as their history is
//! not kept any more.

use anyhow::Result;

use super::report::Found;
use super::snapshot::{Snapshots, count, find};

pub(super) async fn order_decides(now: &mut Snapshots) -> Result<Found> {
    let mut found = Found::default();
    let inventory = &mut now.inventory;
    count(&mut found, inventory, "changes in the journal", "SELECT count(*) FROM journal").await?;
    count(&mut found, inventory, "sales", "SELECT count(*) FROM journal WHERE to_state = 'sold'").await?;
    for query in [SOLD_UNATTACHED, GAPS, LEAPS, OTHER_END] {
        find(&mut found, inventory, now.cutoff, query).await?;
    }
    Ok(found)
}

const SOLD_UNATTACHED: &str = "
    SELECT format('hld_b%s_%s was sold to %s in version %s, and was %s before', block, replace(hold::text, '-', ''),
        coalesce('ord_' || replace(order_id::text, '-', ''), 'nobody'), version,
        was || coalesce(' (ord_' || replace(of_order::text, '-', '') || ')', ''))
    FROM (
        SELECT block, version, hold, to_state, order_id, lag(to_state, 1, 'free') OVER before AS was,
            lag(order_id) OVER before AS of_order
        FROM journal
        WHERE block NOT IN (SELECT b.id FROM block b JOIN show s ON s.id = b.show WHERE s.history <> 'kept')
        WINDOW before AS (PARTITION BY hold ORDER BY version)
    ) AS changes
    WHERE to_state = 'sold' AND (was <> 'attached' OR order_id IS NULL OR of_order IS DISTINCT FROM order_id)";

/// A block begins with version 1 and every change is one version and one row.
const GAPS: &str = "
    SELECT format('block b%s is at version %s, and its journal has %s rows from %s to %s', b.id, b.version,
        coalesce(j.rows, 0), coalesce(j.first::text, 'nothing'), coalesce(j.last::text, 'nothing'))
    FROM block b LEFT JOIN (
        SELECT block, count(*) AS rows, min(version) AS first, max(version) AS last FROM journal GROUP BY block
    ) AS j ON j.block = b.id
    WHERE NOT EXISTS (SELECT FROM show s WHERE s.id = b.show AND s.history <> 'kept')
        AND (coalesce(j.rows, 0) <> b.version - 1 OR coalesce(j.first, 2) <> 2 OR coalesce(j.last, 1) <> b.version)";

const LEAPS: &str = "
    SELECT format('hld_b%s_%s went from %s to %s in version %s, and was %s before', block,
        replace(hold::text, '-', ''), from_state, to_state, version, was)
    FROM (
        SELECT block, version, hold, from_state, to_state, lag(to_state, 1, 'free') OVER before AS was
        FROM journal
        WHERE block NOT IN (SELECT b.id FROM block b JOIN show s ON s.id = b.show WHERE s.history <> 'kept')
        WINDOW before AS (PARTITION BY hold ORDER BY version)
    ) AS changes
    -- What is sold too early has its own sentence.
    WHERE from_state <> was AND to_state <> 'sold'";

const OTHER_END: &str = "
    SELECT format('hld_b%s_%s is %s, and its journal ends with %s', coalesce(h.block, j.block),
        replace(coalesce(h.id, j.hold)::text, '-', ''), coalesce(h.state, 'nowhere'), coalesce(j.to_state, 'nothing'))
    FROM hold h FULL JOIN (
        SELECT DISTINCT ON (hold) hold, block, to_state, order_id FROM journal ORDER BY hold, version DESC
    ) AS j ON j.hold = h.id
    WHERE (h.block IS DISTINCT FROM j.block
            OR j.to_state IS DISTINCT FROM CASE h.state WHEN 'freed' THEN 'free' ELSE h.state END
            OR (h.state IN ('attached', 'sold') AND h.order_id IS DISTINCT FROM j.order_id))
        AND coalesce(h.block, j.block) NOT IN (SELECT b.id FROM block b JOIN show s ON s.id = b.show WHERE s.history <> 'kept')";
