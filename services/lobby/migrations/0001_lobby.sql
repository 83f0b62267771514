-- Shows and places. What was acknowledged to somebody who waits is here; the rest is in memory.

CREATE TABLE show (
    show_id         uuid PRIMARY KEY,
    version         bigint      NOT NULL,
    sale_opens_at   timestamptz NOT NULL,
    starts_at       timestamptz NOT NULL,
    -- Null: a show without a lobby.
    opens_at        timestamptz,
    rate_per_second integer,
    slots_max       integer,
    slot_seconds    integer,
    -- Its SHA-256 is public before anybody can join, itself after the draw.
    seed            bytea       NOT NULL,
    drawn_at        timestamptz,
    -- Numbers given so far: the next to come gets the next one.
    numbered        bigint      NOT NULL DEFAULT 0,
    -- The highest number that was called.
    serving         bigint      NOT NULL DEFAULT 0,
    -- What the rate has left over: a token bucket that holds one second's worth.
    allowance       double precision NOT NULL DEFAULT 0,
    allowance_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE place (
    place_id        uuid PRIMARY KEY,
    show_id         uuid        NOT NULL REFERENCES show,
    session         uuid        NOT NULL,
    state           text        NOT NULL CHECK (state IN ('early', 'waiting', 'admitted', 'sold_out', 'expired', 'left')),
    number          bigint,
    joined_at       timestamptz NOT NULL DEFAULT now(),
    -- Roughly when its holder was last heard of.
    seen_at         timestamptz NOT NULL DEFAULT now(),
    admitted_at     timestamptz,
    pass_id         uuid UNIQUE,
    pass_expires_at timestamptz,
    ended_at        timestamptz,
    CHECK (state = 'early' OR number IS NOT NULL OR state IN ('left', 'sold_out')),
    CHECK ((state = 'admitted') <= (pass_id IS NOT NULL))
);

-- One open place for a session and a show.
CREATE UNIQUE INDEX place_open ON place (session, show_id) WHERE state IN ('early', 'waiting', 'admitted');
CREATE UNIQUE INDEX place_number ON place (show_id, number);
CREATE INDEX place_waiting ON place (show_id, number) WHERE state = 'waiting';
CREATE INDEX place_early ON place (show_id) WHERE state = 'early';
-- Slots are rows, never a counter.
CREATE INDEX place_slot ON place (show_id, pass_expires_at) WHERE state = 'admitted';
