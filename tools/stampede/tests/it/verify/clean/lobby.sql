INSERT INTO show (show_id, version, sale_opens_at, starts_at, opens_at, rate_per_second, slots_max, slot_seconds, seed,
    drawn_at, numbered, serving)
VALUES (id('show', 1), 1, began(0), now() + interval '90 days', began(0), 10, 2, 300, '\x00', began(0), 7, 6);

-- Whoever bought freed the slot by ordering; number 6 has one still.
INSERT INTO place (place_id, show_id, session, state, number, joined_at, admitted_at, pass_id, pass_expires_at, ended_at)
SELECT id('place', number), id('show', 1), id('session', number), 'expired', number, began(number), began(number),
    id('pass', number), began(number) + interval '5 minutes', began(number) + interval '11 seconds'
FROM generate_series(1, 5) AS number;
INSERT INTO place (place_id, show_id, session, state, number, joined_at, admitted_at, pass_id, pass_expires_at)
VALUES (id('place', 6), id('show', 1), id('session', 6), 'admitted', 6, began(6), began(6), id('pass', 6),
    now() + interval '5 minutes');
INSERT INTO place (place_id, show_id, session, state, number, joined_at, ended_at)
VALUES (id('place', 7), id('show', 1), id('session', 7), 'sold_out', 7, began(7), began(8)),
    (id('place', 8), id('show', 1), id('session', 8), 'left', NULL, began(0) - interval '1 hour', began(0));
