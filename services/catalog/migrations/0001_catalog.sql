-- Venues, shows, sections and prices. Availability is not here: it is a copy in each replica's memory.

CREATE TABLE venue (
    venue_id uuid PRIMARY KEY,
    name     text NOT NULL,
    city     text NOT NULL,
    UNIQUE (name, city)
);

CREATE TABLE show (
    show_id       uuid PRIMARY KEY,
    slug          text        NOT NULL UNIQUE,
    title         text        NOT NULL,
    venue_id      uuid        NOT NULL REFERENCES venue,
    starts_at     timestamptz NOT NULL,
    sale_opens_at timestamptz NOT NULL,
    cancel_until  timestamptz NOT NULL,
    currency      text        NOT NULL,
    lobby         jsonb,
    version       bigint      NOT NULL DEFAULT 1,
    -- What the operator sent, so that the same request again is recognised as the same.
    request       jsonb       NOT NULL
);

CREATE INDEX show_by_start ON show (starts_at, show_id);

CREATE TABLE section (
    section_id uuid PRIMARY KEY,
    show_id    uuid    NOT NULL REFERENCES show,
    position   integer NOT NULL,
    name       text    NOT NULL,
    price      bigint  NOT NULL CHECK (price >= 0),
    seating    jsonb   NOT NULL,
    UNIQUE (show_id, position),
    UNIQUE (show_id, name)
);

-- The generation of the stream that all shows were last published to: another one means that it was made anew.
CREATE TABLE published (
    stream     text PRIMARY KEY,
    generation text NOT NULL
);


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
