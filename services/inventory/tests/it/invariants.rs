//! What must hold in the database whatever happened.

use stampede_postgres::PgPool;

/// Each finds violations.
const INVARIANTS: &[(&str, &str)] = &[
    (
        "counts and letters agree",
        "SELECT b.id::text FROM block b, LATERAL (
             SELECT count(*) FILTER (WHERE l = 'f') f, count(*) FILTER (WHERE l = 'h') h,
                    count(*) FILTER (WHERE l = 'a') a, count(*) FILTER (WHERE l = 's') s
             FROM unnest(string_to_array(b.seats, NULL)) l) n
         WHERE b.seats IS NOT NULL AND (b.free, b.held, b.attached, b.sold) <> (n.f, n.h, n.a, n.s)",
    ),
    (
        "every seat of a hold has the hold's letter",
        "SELECT h.id::text || ' ' || s FROM hold h JOIN block b ON b.id = h.block, unnest(h.seats) s
         WHERE h.state <> 'freed' AND substr(b.seats, s + 1, 1) <> left(h.state, 1)",
    ),
    (
        "no seat is in two holds",
        "SELECT block || ' ' || s FROM hold, unnest(seats) s WHERE state <> 'freed' GROUP BY block, s HAVING count(*) > 1",
    ),
    (
        "counts and holds agree",
        "SELECT b.id::text FROM block b LEFT JOIN LATERAL (
             SELECT coalesce(sum(quantity) FILTER (WHERE state = 'held'), 0) h,
                    coalesce(sum(quantity) FILTER (WHERE state = 'attached'), 0) a,
                    coalesce(sum(quantity) FILTER (WHERE state = 'sold'), 0) s
             FROM hold WHERE hold.block = b.id) n ON true
         WHERE (b.held, b.attached, b.sold) <> (n.h, n.a, n.s)",
    ),
    (
        "the journal is without gaps and ends at the block's version",
        "SELECT b.id::text FROM block b LEFT JOIN journal j ON j.block = b.id GROUP BY b.id
         HAVING count(j.version) <> b.version - 1 OR coalesce(max(j.version), 1) <> b.version",
    ),
    (
        "the journal of a hold is a chain that ends in its state",
        "SELECT h.id::text FROM hold h JOIN LATERAL (
             SELECT bool_and(from_state = previous) chained, (array_agg(to_state ORDER BY version DESC))[1] last
             FROM (SELECT version, from_state, to_state,
                          lag(to_state, 1, 'free') OVER (ORDER BY version) previous
                   FROM journal WHERE journal.hold = h.id) steps) j ON true
         WHERE NOT coalesce(j.chained, false) OR j.last <> CASE h.state WHEN 'freed' THEN 'free' ELSE h.state END",
    ),
];

/// Looks for violations.
pub async fn check(pool: &PgPool) {
    for (name, sql) in INVARIANTS {
        let violations: Vec<String> = sqlx::query_scalar(*sql).fetch_all(pool).await.unwrap();
        assert!(violations.is_empty(), "{name}: {violations:?}");
    }
}
