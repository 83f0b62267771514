INSERT INTO show (id, version, title, venue, starts_at, sale_opens_at, cancel_until, needs_pass, layout_published)
VALUES (id('show', 1), 1, 'Club Night', 'Blue Note Cellar', now() + interval '90 days', began(0),
    now() + interval '90 days', true, true);

INSERT INTO section (id, show, position, name, numbered, price, currency) VALUES
    (id('section', 1), id('show', 1), 0, 'Hall', true, 2500, 'EUR'),
    (id('section', 2), id('show', 1), 1, 'Floor', false, 1000, 'EUR');

INSERT INTO block (id, show, section, position, shard, capacity, free, held, attached, sold, seats, rows, version)
OVERRIDING SYSTEM VALUE VALUES
    (1, id('show', 1), id('section', 1), 0, 0, 10, 7, 1, 0, 2, 'ssffhfffff',
        '[{"label": "A", "first_number": 1, "seats": 10}]', 15),
    (2, id('show', 1), id('section', 2), 0, 1, 6, 4, 0, 0, 2, NULL, '[]', 8);

-- 1 and 2 were bought, 3 declined, 4 failed at the capture, 5 cancelled later; 6 is held; 8 ended before all of them.
INSERT INTO hold (id, block, session, show, section, quantity, seats, unit_price, currency, state, expires_at, order_id,
    pass_id, placed, created_at)
SELECT id('hold', number), block, id('session', number), id('show', 1), id('section', block), quantity, seats,
    CASE block WHEN 1 THEN 2500 ELSE 1000 END, 'EUR', state,
    CASE number WHEN 6 THEN now() + interval '5 minutes' ELSE began(number) + interval '5 minutes' END,
    CASE WHEN has_order THEN id('order', number) END,
    CASE WHEN number <= 6 THEN id('pass', number) END,
    jsonb_build_object('hold_id', wire('hld_b' || block, id('hold', number)),
        'session', wire('ses', id('session', number)), 'show_id', wire('shw', id('show', 1)),
        'section_id', wire('sec', id('section', block)), 'quantity', quantity, 'seats', '[]'::jsonb,
        'total', jsonb_build_object('amount', quantity * CASE block WHEN 1 THEN 2500 ELSE 1000 END, 'currency', 'EUR'),
        'expires_at', '2027-01-31T20:00:00.000Z', 'state', 'held', 'order_id', NULL,
        'show', jsonb_build_object('title', 'Club Night', 'venue', 'Blue Note Cellar',
            'starts_at', '2027-01-31T20:00:00.000Z', 'cancel_until', '2027-01-31T20:00:00.000Z')),
    began(number) + interval '5 seconds'
FROM (VALUES
    (1, 1, 2, '{0,1}'::smallint[], 'sold', true),
    (2, 2, 2, NULL, 'sold', true),
    (3, 1, 1, '{2}', 'freed', false),
    (4, 1, 1, '{3}', 'freed', true),
    (5, 2, 1, NULL, 'freed', true),
    (6, 1, 1, '{4}', 'held', false),
    (8, 1, 2, '{0,5}', 'freed', false)
) AS holds (number, block, quantity, seats, state, has_order);

INSERT INTO hold_request (session, key, fingerprint, hold, created_at)
SELECT session, 'hold-' || id, 'f', id, created_at FROM hold;

INSERT INTO pass (pass_id, session, show, closed_at, created_at)
SELECT id('pass', number), id('session', number), id('show', 1),
    CASE WHEN number < 6 THEN began(number) + interval '10 seconds' END, began(number) + interval '5 seconds'
FROM generate_series(1, 6) AS number;

INSERT INTO journal (block, version, hold, from_state, to_state, order_id, at)
SELECT block, version, id('hold', number), from_state, to_state, CASE WHEN has_order THEN id('order', number) END,
    began(number) + version * interval '1 second'
FROM (VALUES
    (1, 2, 8, 'free', 'held', false), (1, 3, 8, 'held', 'free', false),
    (1, 4, 1, 'free', 'held', false), (1, 5, 1, 'held', 'attached', true), (1, 6, 1, 'attached', 'sold', true),
    (1, 7, 3, 'free', 'held', false), (1, 8, 3, 'held', 'attached', true), (1, 9, 3, 'attached', 'held', true),
    (1, 10, 3, 'held', 'free', false),
    (1, 11, 4, 'free', 'held', false), (1, 12, 4, 'held', 'attached', true), (1, 13, 4, 'attached', 'sold', true),
    (1, 14, 4, 'sold', 'free', true),
    (1, 15, 6, 'free', 'held', false),
    (2, 2, 2, 'free', 'held', false), (2, 3, 2, 'held', 'attached', true), (2, 4, 2, 'attached', 'sold', true),
    (2, 5, 5, 'free', 'held', false), (2, 6, 5, 'held', 'attached', true), (2, 7, 5, 'attached', 'sold', true),
    (2, 8, 5, 'sold', 'free', true)
) AS changes (block, version, number, from_state, to_state, has_order);
