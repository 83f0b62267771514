INSERT INTO operation (step_id, order_id, action, amount, currency, authorisation, taken_at, due_at, outcome, reference,
    reason, settled_at)
SELECT id(action, number), id('order', number), action, amount, 'EUR',
    CASE WHEN action <> 'authorise' THEN id('authorise', number) END, began(number) + interval '11 seconds',
    began(number), outcome, reference, reason, began(number) + interval '12 seconds'
FROM (VALUES
    (1, 'authorise', 5000, 'succeeded', 'auth_1', NULL), (1, 'capture', 5000, 'succeeded', 'cap_1', NULL),
    (2, 'authorise', 2000, 'succeeded', 'auth_2', NULL), (2, 'capture', 2000, 'succeeded', 'cap_2', NULL),
    (3, 'authorise', 2500, 'declined', NULL, 'card_declined'),
    (4, 'authorise', 2500, 'succeeded', 'auth_4', NULL), (4, 'capture', 2500, 'refused', NULL, 'capture_not_allowed'),
    (4, 'void', 2500, 'succeeded', 'void_4', NULL),
    (5, 'authorise', 1000, 'succeeded', 'auth_5', NULL), (5, 'capture', 1000, 'succeeded', 'cap_5', NULL),
    (5, 'refund', 1000, 'succeeded', 'ref_5', NULL)
) AS operations (number, action, amount, outcome, reference, reason);

INSERT INTO entry (step_id, account, amount, currency)
SELECT id(action, number), account, amount, 'EUR'
FROM (VALUES
    (1, 'capture', 'receivable:psp', 5000), (1, 'capture', 'sales', -5000),
    (2, 'capture', 'receivable:psp', 2000), (2, 'capture', 'sales', -2000),
    (5, 'capture', 'receivable:psp', 1000), (5, 'capture', 'sales', -1000),
    (5, 'refund', 'receivable:psp', -1000), (5, 'refund', 'refunds', 1000)
) AS entries (number, action, account, amount);
