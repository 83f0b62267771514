-- The same five purchases as in inventory, all at rest.
INSERT INTO orders (order_id, session_id, idempotency_key, fingerprint, state, hold_block, hold_id, show_id, show_title,
    venue, starts_at, cancel_until, amount, currency, quantity, seats, buyer_name, buyer_email, order_secret, decide_by,
    cancel_requested_at, settled_at, reply_status, reply_body, running_until, created_at)
SELECT id('order', number), id('session', number), 'order-' || number, decode(repeat('00', 32), 'hex'), state, block,
    id('hold', number), id('show', 1), 'Club Night', 'Blue Note Cellar', now() + interval '90 days',
    now() + interval '90 days', amount, 'EUR', quantity, '[]', 'Grace Hopper ' || number,
    format('grace-%s@example.org', number), repeat(to_hex(number), 64), began(number) + interval '15 minutes',
    CASE state WHEN 'cancelled' THEN began(number) + interval '60 seconds' END,
    began(number) + CASE state WHEN 'cancelled' THEN interval '70 seconds' ELSE interval '20 seconds' END,
    status, convert_to('answer ' || number, 'UTF8'), began(number) + interval '15 seconds',
    began(number) + interval '10 seconds'
FROM (VALUES
    (1, 'confirmed', 1, 5000, 2, 201),
    (2, 'confirmed', 2, 2000, 2, 201),
    (3, 'declined', 1, 2500, 1, 402),
    (4, 'failed', 1, 2500, 1, 409),
    (5, 'cancelled', 2, 1000, 1, 201)
) AS orders (number, state, block, amount, quantity, status);

INSERT INTO step (step_id, order_id, kind, state, next_at, outcome, created_at, done_at)
SELECT id(kind, number), id('order', number), kind, state, began(number), NULL, began(number) + interval '10 seconds',
    began(number) + interval '20 seconds'
FROM (VALUES
    (1, 'attach', 'done'), (1, 'authorise', 'done'), (1, 'confirm', 'done'), (1, 'capture', 'done'),
    (1, 'notify_tickets', 'done'),
    (2, 'attach', 'done'), (2, 'authorise', 'done'), (2, 'confirm', 'done'), (2, 'capture', 'done'),
    (2, 'notify_tickets', 'done'),
    (3, 'attach', 'done'), (3, 'authorise', 'refused'), (3, 'detach', 'done'),
    (4, 'attach', 'done'), (4, 'authorise', 'done'), (4, 'confirm', 'done'), (4, 'capture', 'refused'),
    (4, 'free', 'done'), (4, 'void', 'done'),
    (5, 'attach', 'done'), (5, 'authorise', 'done'), (5, 'confirm', 'done'), (5, 'capture', 'done'),
    (5, 'notify_tickets', 'done'), (5, 'free', 'done'), (5, 'refund', 'done'), (5, 'notify_cancelled', 'done')
) AS steps (number, kind, state);

INSERT INTO ticket (ticket_id, order_id, show_id, seat, label, state, code, created_at, revoked_at)
SELECT id('ticket', 10 * number + place), id('order', number), id('show', 1), seat, '{}', state,
    format('code %s-%s', number, place), began(number) + interval '20 seconds',
    CASE state WHEN 'revoked' THEN began(number) + interval '60 seconds' END
FROM (VALUES
    (1, 1, 'b1-0', 'valid'), (1, 2, 'b1-1', 'valid'),
    (2, 1, NULL, 'valid'), (2, 2, NULL, 'valid'),
    (5, 1, NULL, 'revoked')
) AS tickets (number, place, seat, state);
