//! Rules that are about databases alone: what was done to them, and the words in which it is told.

use stampede::verify::Rule;

use super::world::{World, each_breaks};

#[tokio::test]
async fn rule_1_a_seat_is_sold_once() {
    each_breaks(
        Rule::SeatOnce,
        &[
            (
                "seat b1-0 of show",
                &[(
                    "orders",
                    "INSERT INTO ticket SELECT id('ticket', 99), order_id, show_id, seat, label, state, code, created_at
                     FROM ticket WHERE seat = 'b1-0'",
                )],
            ),
            (
                "seat b1-4 has 2 holds at once",
                &[(
                    "inventory",
                    "INSERT INTO hold SELECT id('hold', 9), block, id('session', 9), show, section, quantity, seats,
                         unit_price, currency, state, expires_at, NULL, NULL, '{}', NULL, placed, created_at
                     FROM hold WHERE id = id('hold', 6);
                     INSERT INTO journal (block, version, hold, from_state, to_state, at)
                     VALUES (1, 16, id('hold', 9), 'free', 'held', now());
                     UPDATE block SET version = 16, seats = 'ssffhhffff', held = 2, free = 6 WHERE id = 1",
                )],
            ),
            (
                "seat b1-0 was taken by",
                &[(
                    "inventory",
                    "INSERT INTO hold SELECT id('hold', 9), block, id('session', 9), show, section, quantity, seats,
                         unit_price, currency, state, expires_at, NULL, NULL, '{}', NULL, placed, created_at
                     FROM hold WHERE id = id('hold', 8);
                     INSERT INTO journal (block, version, hold, from_state, to_state, at)
                     VALUES (1, 16, id('hold', 9), 'free', 'held', now()), (1, 17, id('hold', 9), 'held', 'free', now());
                     UPDATE block SET version = 17 WHERE id = 1",
                )],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn rule_2_every_place_is_accounted_for() {
    each_breaks(
        Rule::Capacity,
        &[
            ("and it has 6 places", &[("inventory", "UPDATE block SET free = free + 1 WHERE id = 2")]),
            ("and its seats are", &[("inventory", "UPDATE block SET seats = 'ssffhsffff' WHERE id = 1")]),
            (
                "and its holds have 1, 0 and 2",
                &[("inventory", "UPDATE block SET held = 0, free = 8, seats = 'ssffffffff' WHERE id = 1")],
            ),
            ("seat b1-4 is 'f' in its block", &[("inventory", "UPDATE block SET seats = 'ssfffffffh' WHERE id = 1")]),
            (
                "block b2 had 7 places taken in version 9",
                &[(
                    "inventory",
                    "INSERT INTO hold SELECT id('hold', 9), block, id('session', 9), show, section, 5, NULL, unit_price,
                         currency, 'freed', expires_at, NULL, NULL, '{}', NULL, placed, created_at
                     FROM hold WHERE id = id('hold', 5);
                     INSERT INTO journal (block, version, hold, from_state, to_state, at)
                     VALUES (2, 9, id('hold', 9), 'free', 'held', now()), (2, 10, id('hold', 9), 'held', 'free', now());
                     UPDATE block SET version = 10 WHERE id = 2",
                )],
            ),
            (
                "has 6 places in inventory, and catalog planned 7",
                &[("catalog", r#"UPDATE section SET seating = '{"general_admission": 7}' WHERE position = 1"#)],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn rule_3_charged_the_price_with_tickets_or_nothing() {
    each_breaks(
        Rule::Price,
        &[
            (
                "is confirmed with 0 valid tickets at 50.00 EUR, and the provider took 50.00 EUR and gave back 0.00",
                &[(
                    "orders",
                    "UPDATE ticket SET state = 'revoked', revoked_at = now() WHERE order_id = id('order', 1)",
                )],
            ),
            (
                "is cancelled with 0 valid tickets at 10.00 EUR, and the provider took 10.00 EUR and gave back 0.00",
                &[
                    ("orders", "DELETE FROM step WHERE step_id = id('refund', 5)"),
                    (
                        "payments",
                        "DELETE FROM entry WHERE step_id = id('refund', 5);
                         DELETE FROM operation WHERE step_id = id('refund', 5)",
                    ),
                    ("psp", "DELETE FROM operation WHERE id = 'ref_5'"),
                ],
            ),
            (
                "took 10.00 EUR and gave back 4.00 EUR",
                &[
                    (
                        "payments",
                        "UPDATE entry SET amount = sign(amount) * 400 WHERE step_id = id('refund', 5);
                         UPDATE operation SET amount = 400 WHERE step_id = id('refund', 5)",
                    ),
                    ("psp", "UPDATE operation SET amount = 400 WHERE id = 'ref_5'"),
                ],
            ),
            (
                "is confirmed for 2 places, and 1 of them have a valid ticket",
                &[("orders", "DELETE FROM ticket WHERE ticket_id = id('ticket', 22)")],
            ),
            (
                "is for 2 places at 40.00 EUR, and hold",
                &[
                    ("orders", "UPDATE orders SET amount = 4000 WHERE order_id = id('order', 1)"),
                    (
                        "payments",
                        "UPDATE entry SET amount = sign(amount) * 4000 WHERE step_id = id('capture', 1);
                         UPDATE operation SET amount = 4000 WHERE order_id = id('order', 1)",
                    ),
                    ("psp", "UPDATE operation SET amount = 4000 WHERE amount = 5000"),
                ],
            ),
            (
                "and there is no such order",
                &[
                    (
                        "payments",
                        "INSERT INTO operation SELECT id(action, 9), id('order', 9), action, amount, currency,
                             CASE action WHEN 'capture' THEN id('authorise', 9) END, false, NULL, taken_at, due_at, NULL,
                             0, NULL, outcome, replace(reference, '1', '9'), NULL, settled_at
                         FROM operation WHERE order_id = id('order', 1);
                         INSERT INTO entry (step_id, account, amount, currency)
                         SELECT id('capture', 9), account, amount, currency FROM entry WHERE step_id = id('capture', 1)",
                    ),
                    (
                        "psp",
                        "INSERT INTO operation (key, kind, status, id, about, amount, currency, reference)
                         SELECT wire('stp', id(kind, 9)), kind, status, replace(id, '1', '9'), replace(about, '1', '9'),
                             amount, currency, wire('ord', id('order', 9))
                         FROM operation WHERE reference = wire('ord', id('order', 1))",
                    ),
                ],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn rule_4_captured_once_and_both_ledgers_agree() {
    each_breaks(
        Rule::Ledgers,
        &[
            (
                "the provider captured 2 times",
                &[
                    (
                        "payments",
                        "INSERT INTO operation SELECT id(action, 9), id('order', 1), action, 1000, currency,
                             CASE WHEN action <> 'authorise' THEN id('authorise', 9) END, false, NULL, taken_at, due_at,
                             NULL, 0, NULL, outcome, replace(reference, '5', '9'), NULL, settled_at
                         FROM operation WHERE order_id = id('order', 5);
                         INSERT INTO entry (step_id, account, amount, currency)
                         SELECT CASE step_id WHEN id('capture', 5) THEN id('capture', 9) ELSE id('refund', 9) END,
                             account, amount, currency
                         FROM entry WHERE step_id IN (id('capture', 5), id('refund', 5))",
                    ),
                    (
                        "psp",
                        "INSERT INTO operation (key, kind, status, id, about, amount, currency, reference)
                         SELECT wire('stp', id(kind, 9)), kind, status, replace(id, '5', '9'), replace(about, '5', '9'),
                             amount, currency, wire('ord', id('order', 1))
                         FROM operation WHERE reference = wire('ord', id('order', 5))",
                    ),
                ],
            ),
            (
                "is neither captured nor voided",
                &[
                    (
                        "payments",
                        "INSERT INTO operation SELECT id('authorise', 9), id('order', 3), action, amount, currency, NULL,
                             false, NULL, taken_at, due_at, NULL, 0, NULL, outcome, 'auth_9', NULL, settled_at
                         FROM operation WHERE step_id = id('authorise', 1)",
                    ),
                    (
                        "psp",
                        "INSERT INTO operation (key, kind, status, id, amount, currency, reference)
                         VALUES (wire('stp', id('authorise', 9)), 'authorise', 'authorised', 'auth_9', 5000, 'EUR',
                             wire('ord', id('order', 3)))",
                    ),
                ],
            ),
            (
                "authorisation auth_4 ended 2 times",
                &[
                    (
                        "payments",
                        "INSERT INTO operation SELECT id('void', 9), order_id, action, amount, currency, authorisation,
                             false, NULL, taken_at, due_at, NULL, 0, NULL, outcome, 'void_9', NULL, settled_at
                         FROM operation WHERE step_id = id('void', 4)",
                    ),
                    (
                        "psp",
                        "INSERT INTO operation (key, kind, status, id, about, amount, currency, reference)
                         SELECT wire('stp', id('void', 9)), kind, status, 'void_9', about, amount, currency, reference
                         FROM operation WHERE id = 'void_4'",
                    ),
                ],
            ),
            (
                "we have capture 5000 EUR (cap_x), the provider has capture 5000 EUR (cap_1)",
                &[("payments", "UPDATE operation SET reference = 'cap_x' WHERE step_id = id('capture', 1)")],
            ),
            (
                "we have capture 5000 EUR (cap_1), the provider has nothing",
                &[(
                    "psp",
                    "UPDATE operation SET key = 'stp_other', kind = 'cancel', status = 'cancelled', id = NULL
                     WHERE id = 'cap_1';
                     INSERT INTO operation (key, kind, status, id, about, amount, currency, reference)
                     VALUES ('foreign', 'capture', 'captured', 'cap_1', 'auth_1', 5000, 'EUR', wire('ord', id('order', 1)))",
                )],
            ),
            (
                "and we never asked for it",
                &[(
                    "psp",
                    "INSERT INTO operation (key, kind, status, id, about, amount, currency, reference)
                     VALUES ('foreign', 'void', 'voided', 'void_9', 'auth_9', 1, 'EUR', 'x')",
                )],
            ),
            (
                "sum to 1 EUR",
                &[(
                    "payments",
                    "UPDATE entry SET amount = amount + 1 WHERE step_id = id('capture', 2) AND account = 'sales'",
                )],
            ),
            (
                "is capture 2000 EUR succeeded, and booked as nothing",
                &[("payments", "DELETE FROM entry WHERE step_id = id('capture', 2)")],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn rule_5_sold_only_to_the_order_it_was_attached_to() {
    each_breaks(
        Rule::Attached,
        &[
            (
                "and was attached (ord_",
                &[(
                    "inventory",
                    "UPDATE journal SET order_id = id('order', 2) WHERE block = 1 AND version = 5",
                )],
            ),
            (
                "in version 6, and was held",
                &[("inventory", "UPDATE journal SET to_state = 'held' WHERE block = 1 AND version = 5")],
            ),
            (
                "block b1 is at version 15, and its journal has 12 rows from 2 to 15",
                &[("inventory", "DELETE FROM journal WHERE block = 1 AND version IN (8, 9)")],
            ),
            (
                "went from attached to free in version 14, and was sold before",
                &[(
                    "inventory",
                    "UPDATE journal SET from_state = 'attached' WHERE block = 1 AND version = 14",
                )],
            ),
            (
                "is held, and its journal ends with attached",
                &[("inventory", "UPDATE journal SET to_state = 'attached' WHERE block = 1 AND version = 15")],
            ),
            (
                "has tickets, and its hold",
                &[(
                    "inventory",
                    "UPDATE hold SET state = 'freed' WHERE id = id('hold', 1);
                     INSERT INTO journal (block, version, hold, from_state, to_state, order_id, at)
                     VALUES (1, 16, id('hold', 1), 'sold', 'free', id('order', 1), now());
                     UPDATE block SET version = 16, seats = 'ffffhfffff', free = 9, sold = 0 WHERE id = 1",
                )],
            ),
            (
                "which is cancelled",
                &[(
                    "inventory",
                    "UPDATE hold SET state = 'sold' WHERE id = id('hold', 5);
                     DELETE FROM journal WHERE block = 2 AND version = 8;
                     UPDATE block SET version = 7, free = 3, sold = 3 WHERE id = 2",
                )],
            ),
            (
                "of another session",
                &[(
                    "orders",
                    "UPDATE orders SET session_id = id('session', 99) WHERE order_id = id('order', 1)",
                )],
            ),
            (
                "has a ticket for seat b1-7",
                &[("orders", "UPDATE ticket SET seat = 'b1-7' WHERE seat = 'b1-1'")],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn rule_7_a_stored_answer_says_what_became_of_the_order() {
    each_breaks(
        Rule::Kept,
        &[
            (
                "was answered 201, and is failed",
                &[("orders", "UPDATE orders SET reply_status = 201 WHERE order_id = id('order', 4)")],
            ),
            (
                "was answered 402, and is confirmed",
                &[("orders", "UPDATE orders SET reply_status = 402 WHERE order_id = id('order', 1)")],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn rule_9_everything_that_was_begun_ends() {
    each_breaks(
        Rule::Ends,
        &[
            (
                "is open since",
                &[(
                    "payments",
                    "INSERT INTO operation (step_id, order_id, action, amount, currency, due_at)
                     VALUES (id('authorise', 9), id('order', 9), 'authorise', 1, 'EUR', now())",
                )],
            ),
            (
                "step free of order",
                &[(
                    "orders",
                    "UPDATE step SET state = 'open', done_at = NULL WHERE step_id = id('free', 4)",
                )],
            ),
            (
                "is held and should have ended at",
                &[("inventory", "UPDATE hold SET expires_at = now() - interval '1 minute' WHERE id = id('hold', 6)")],
            ),
            (
                "which is declined",
                &[(
                    "inventory",
                    "UPDATE hold SET state = 'attached', order_id = id('order', 3),
                         attached_until = now() + interval '1 hour' WHERE id = id('hold', 6);
                     INSERT INTO journal (block, version, hold, from_state, to_state, order_id, at)
                     VALUES (1, 16, id('hold', 6), 'held', 'attached', id('order', 3), now());
                     UPDATE block SET version = 16, seats = 'ssffafffff', held = 0, attached = 1 WHERE id = 1",
                )],
            ),
            (
                "with number 7 of show",
                &[("lobby", "UPDATE place SET state = 'waiting', ended_at = NULL WHERE number = 7")],
            ),
            (
                "is early, and the sale of show",
                &[("lobby", "UPDATE place SET state = 'early', ended_at = NULL WHERE place_id = id('place', 8)")],
            ),
            (
                "has a slot that should have ended at",
                &[("lobby", "UPDATE place SET pass_expires_at = now() - interval '1 minute' WHERE number = 6")],
            ),
            (
                "mail notify_tickets of order",
                &[("notify", "DELETE FROM mail WHERE step_id = id('notify_tickets', 1)")],
            ),
            (
                "is dead",
                &[("notify", "UPDATE mail SET state = 'dead' WHERE step_id = id('notify_cancelled', 5)")],
            ),
            (
                "and no mail with its tickets was ever wanted",
                &[("orders", "DELETE FROM step WHERE step_id = id('notify_tickets', 2)")],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn rule_9_a_mail_that_was_sent_has_arrived() {
    let mut world = World::new().await;
    let mail = async |kind: &str, number: i32| {
        let query = "SELECT wire('stp', id($1, $2))";
        let step: String =
            sqlx::query_scalar(query).bind(kind).bind(number).fetch_one(world.pool("notify")).await.unwrap();
        let head = format!("Subject: x\r\nMessage-ID: <{step}@stampede.example>\r\n\r\nwords");
        world.file(&format!("mail/new/{kind}-{number}"), &head)
    };
    let first = mail("notify_tickets", 1).await;
    mail("notify_tickets", 2).await;
    mail("notify_tickets", 5).await;
    world.sources.mails =
        first.parent().and_then(|folder| folder.parent()).map(|folder| folder.to_path_buf());
    world.breaks(Rule::Ends, "the mail sink has not got it").await;
}

#[tokio::test]
async fn rule_11_in_order_once_and_within_the_slots() {
    each_breaks(
        Rule::Lobby,
        &[
            (
                "number 1 of show",
                &[("lobby", "UPDATE place SET admitted_at = began(1) - interval '1 minute' WHERE number = 2")],
            ),
            ("has given 9 numbers, and 7 places have one", &[("lobby", "UPDATE show SET numbered = 9")]),
            (
                "number 5 of show",
                &[("lobby", "UPDATE place SET number = 5 WHERE number = 7; UPDATE show SET numbered = 6")],
            ),
            (
                "had 2 slots in use at once",
                &[(
                    "lobby",
                    "UPDATE show SET slots_max = 1;
                     UPDATE place SET ended_at = began(6) + interval '1 minute' WHERE number = 5",
                )],
            ),
            (
                "has 2 live holds of show",
                &[(
                    "inventory",
                    "INSERT INTO hold SELECT id('hold', 9), block, session, show, section, quantity, '{5}', unit_price,
                         currency, state, expires_at, NULL, NULL, '{}', NULL, placed, created_at
                     FROM hold WHERE id = id('hold', 6);
                     INSERT INTO journal (block, version, hold, from_state, to_state, at)
                     VALUES (1, 16, id('hold', 9), 'free', 'held', now());
                     UPDATE block SET version = 16, seats = 'ssffhhffff', held = 2, free = 6 WHERE id = 1",
                )],
            ),
            (
                "which belongs to another session or show",
                &[("inventory", "UPDATE hold SET pass_id = id('pass', 5) WHERE id = id('hold', 6)")],
            ),
            (
                "which no lobby gave",
                &[("inventory", "UPDATE hold SET pass_id = id('pass', 99) WHERE id = id('hold', 6)")],
            ),
            (
                "and inventory had not closed it",
                &[("inventory", "UPDATE pass SET closed_at = NULL WHERE pass_id = id('pass', 5)")],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn rule_11_nobody_is_passed_over_and_nobody_stands_twice() {
    // Whoever waits breaks rule 9 as well, unless they have only just come.
    for (words, how) in [
        (
            "still waits, and number 7 was called",
            "UPDATE place SET number = 99 WHERE number = 5;
             UPDATE place SET number = 5, state = 'waiting', joined_at = now(), ended_at = NULL WHERE number = 7;
             UPDATE place SET number = 7 WHERE number = 99",
        ),
        (
            "has 2 open places in the lobby",
            "UPDATE place SET state = 'waiting', joined_at = now(), ended_at = NULL, session = id('session', 6)
             WHERE number = 7",
        ),
    ] {
        let mut world = World::new().await;
        world.options.younger_than = std::time::Duration::from_secs(60);
        world.spoil("lobby", how).await;
        world.breaks(Rule::Lobby, words).await;
    }
}
