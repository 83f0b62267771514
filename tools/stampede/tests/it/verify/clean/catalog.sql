INSERT INTO venue (venue_id, name, city) VALUES (id('venue', 1), 'Blue Note Cellar', 'Leipzig');

INSERT INTO show (show_id, slug, title, venue_id, starts_at, sale_opens_at, cancel_until, currency, lobby, request)
VALUES (id('show', 1), 'club-night', 'Club Night', id('venue', 1), now() + interval '90 days', began(0),
    now() + interval '90 days', 'EUR', '{}', '{}');

INSERT INTO section (section_id, show_id, position, name, price, seating) VALUES
    (id('section', 1), id('show', 1), 0, 'Hall', 2500, '{"rows": [{"label": "A", "seats": 10}]}'),
    (id('section', 2), id('show', 1), 1, 'Floor', 1000, '{"general_admission": 6}');
