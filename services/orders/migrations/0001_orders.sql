-- Orders and the steps of their sagas. The timeline a buyer reads is derived from these two tables.

CREATE TABLE orders (
    order_id uuid PRIMARY KEY,
    session_id uuid NOT NULL,
    -- Forgotten a day after the order was placed, together with the stored reply.
    idempotency_key text,
    -- HMAC of path and body of the request that placed the order; no plain text is kept.
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    state text NOT NULL
        CHECK (state IN ('pending', 'confirmed', 'declined', 'failing', 'failed', 'cancelling', 'cancelled')),
    hold_block bigint NOT NULL,
    hold_id uuid NOT NULL,

    -- Copied from the hold when it was attached.
    show_id uuid,
    show_title text,
    venue text,
    starts_at timestamptz,
    cancel_until timestamptz,
    amount bigint CHECK (amount >= 0),
    currency text,
    quantity integer CHECK (quantity > 0),
    seats jsonb,

    -- Personal; never in a message, an event or a log.
    buyer_name text NOT NULL,
    buyer_email text NOT NULL,
    -- Forgotten by the transaction that records the authorisation's outcome or gives the order up.
    card_token text,
    order_secret text NOT NULL,

    -- Means nothing once the step `capture` exists.
    decide_by timestamptz NOT NULL,
    cancel_requested_at timestamptz,
    settled_at timestamptz,
    traceparent text,

    -- The first final answer, repeated byte for byte.
    reply_status smallint,
    reply_body bytea,
    -- Until then the first request answers; after it a repeat takes over.
    running_until timestamptz NOT NULL,
    created_at timestamptz NOT NULL,

    CONSTRAINT orders_key UNIQUE (session_id, idempotency_key),
    CONSTRAINT orders_facts_together
        CHECK (num_nulls(show_id, show_title, venue, starts_at, cancel_until, amount, currency, quantity, seats) IN (0, 9)),
    CONSTRAINT orders_settled CHECK ((settled_at IS NOT NULL) = (state IN ('confirmed', 'declined', 'failed', 'cancelled'))),
    CONSTRAINT orders_card_forgotten CHECK (card_token IS NULL OR state = 'pending')
);

-- A session's own orders, newest first: order ids are UUIDv7.
CREATE INDEX orders_of_session ON orders (session_id, order_id DESC);
-- What the sweeper looks at: few rows, whatever the size of the table.
CREATE INDEX orders_unsettled ON orders (decide_by) WHERE state IN ('pending', 'failing', 'cancelling');
-- What housekeeping looks at.
CREATE INDEX orders_with_key ON orders (created_at) WHERE idempotency_key IS NOT NULL;

CREATE TABLE step (
    -- At the same time the key under which the step happens once.
    step_id uuid PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES orders,
    kind text NOT NULL CHECK (kind IN ('attach', 'authorise', 'confirm', 'capture', 'detach', 'free', 'void',
        'refund', 'notify_tickets', 'notify_cancelled', 'notify_failed')),
    -- given_up: begun, its outcome unknown, and undone by another step.
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'refused', 'given_up')),
    -- Sendings after the first.
    attempt integer NOT NULL DEFAULT 0,
    -- When an open step is sent again.
    next_at timestamptz NOT NULL,
    -- When it was last sent again.
    repeated_at timestamptz,
    outcome text,
    created_at timestamptz NOT NULL,
    done_at timestamptz,
    -- Each step once, each undo once: so one captured key per order.
    CONSTRAINT step_once UNIQUE (order_id, kind),
    CONSTRAINT step_done CHECK ((done_at IS NULL) = (state = 'open'))
);

CREATE INDEX step_open ON step (next_at) WHERE state = 'open';

CREATE TABLE ticket (
    ticket_id uuid PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES orders,
    show_id uuid NOT NULL,
    -- Null for general admission.
    seat text,
    label jsonb NOT NULL,
    state text NOT NULL DEFAULT 'valid' CHECK (state IN ('valid', 'revoked')),
    -- Signed; stored, so that a new key does not change what was sent.
    code text NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    CONSTRAINT ticket_revoked CHECK ((revoked_at IS NULL) = (state = 'valid'))
);

CREATE INDEX ticket_of_order ON ticket (order_id);
-- At most one valid ticket per numbered seat, whatever else goes wrong.
CREATE UNIQUE INDEX ticket_seat ON ticket (show_id, seat) WHERE state = 'valid';

-- Which events this service has taken, by their ce-id. The row is written in the transaction of the event's effect.
CREATE TABLE inbox (
    ce_id text PRIMARY KEY,
    seen_at timestamptz NOT NULL DEFAULT now()
);
-- Rows come in the order of time, so the smallest kind of index is enough for purging.
CREATE INDEX inbox_seen_at ON inbox USING brin (seen_at);

-- Messages to publish, written in the transaction of what they tell about. A row is deleted once a stream has it.
CREATE TABLE outbox (
    -- Assigned while the aggregate's own row is locked, so the ids of one aggregate are in the order of its commits.
    id bigint GENERATED ALWAYS AS IDENTITY,
    -- Which relay publishes it: the aggregate's hash modulo the number of partitions.
    partition smallint NOT NULL,
    -- What is kept in order: a hash of the aggregate's name.
    aggregate bigint NOT NULL,
    -- A message that NATS would never take fails the transaction that wrote it, and not a relay behind it.
    subject text NOT NULL CHECK (subject ~ '^[^[:space:]]+$'),
    ce_id text NOT NULL,
    ce_source text NOT NULL,
    ce_type text NOT NULL,
    ce_time timestamptz NOT NULL,
    correlation_id text,
    causation_id text,
    traceparent text,
    msg_id text NOT NULL,
    payload bytea NOT NULL CHECK (octet_length(payload) <= 524288),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (partition, id)
)
-- Every row is soon a dead one. Cleaning up by their number, and not by the size of the table, keeps the reads at its
-- front short.
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
