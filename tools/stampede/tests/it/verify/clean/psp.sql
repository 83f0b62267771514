INSERT INTO operation (key, kind, status, id, about, amount, currency, reference, reason, at)
SELECT wire('stp', id(kind, number)), kind, status, name, about, amount, 'EUR', wire('ord', id('order', number)), reason,
    began(number) + interval '11 seconds'
FROM (VALUES
    (1, 'authorise', 'authorised', 'auth_1', NULL, 5000, NULL), (1, 'capture', 'captured', 'cap_1', 'auth_1', 5000, NULL),
    (2, 'authorise', 'authorised', 'auth_2', NULL, 2000, NULL), (2, 'capture', 'captured', 'cap_2', 'auth_2', 2000, NULL),
    (3, 'authorise', 'declined', NULL, NULL, 2500, 'card_declined'),
    (4, 'authorise', 'authorised', 'auth_4', NULL, 2500, NULL),
    (4, 'capture', 'refused', NULL, 'auth_4', 2500, 'capture_not_allowed'),
    (4, 'void', 'voided', 'void_4', 'auth_4', 2500, NULL),
    (5, 'authorise', 'authorised', 'auth_5', NULL, 1000, NULL), (5, 'capture', 'captured', 'cap_5', 'auth_5', 1000, NULL),
    (5, 'refund', 'refunded', 'ref_5', 'cap_5', 1000, NULL)
) AS operations (number, kind, status, name, about, amount, reason);
