INSERT INTO mail (step_id, order_id, command, state, attempts, created_at, ended_at)
SELECT id(kind, number), id('order', number), '{}', 'sent', 1, began(number) + interval '20 seconds',
    began(number) + interval '21 seconds'
FROM (VALUES (1, 'notify_tickets'), (2, 'notify_tickets'), (5, 'notify_tickets'), (5, 'notify_cancelled'))
    AS mails (number, kind);
