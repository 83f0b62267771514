-- Shows as catalog published them; the highest version wins.
CREATE TABLE show (
    id               uuid PRIMARY KEY,
    version          bigint NOT NULL,
    title            text NOT NULL,
    venue            text NOT NULL,
    starts_at        timestamptz NOT NULL,
    sale_opens_at    timestamptz NOT NULL,
    cancel_until     timestamptz NOT NULL,
    needs_pass       boolean NOT NULL,
    -- Whether bucket and stream know where the blocks of this show lie.
    layout_published boolean NOT NULL DEFAULT false
);
CREATE INDEX show_unpublished ON show (id) WHERE NOT layout_published;

CREATE TABLE section (
    id       uuid PRIMARY KEY,
    show     uuid NOT NULL REFERENCES show,
    position smallint NOT NULL,
    name     text NOT NULL,
    numbered boolean NOT NULL,
    -- Price of one seat in minor units; a hold freezes it.
    price    bigint NOT NULL CHECK (price >= 0),
    currency text NOT NULL,
    UNIQUE (show, position)
);

-- A block is what a purchase locks. Its row is rewritten by every change of a seat, so pages keep room for the next
-- version of the row on the same page (HOT), and no index contains a column that every change writes: `dirty` changes
-- at most once per publication and once per burst of changes.
CREATE TABLE block (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    show              uuid NOT NULL REFERENCES show,
    section           uuid NOT NULL REFERENCES section,
    -- Place within the section, the best first.
    position          integer NOT NULL,
    shard             smallint NOT NULL CHECK (shard BETWEEN 0 AND 63),
    capacity          integer NOT NULL CHECK (capacity BETWEEN 1 AND 1000),
    free              integer NOT NULL CHECK (free >= 0),
    held              integer NOT NULL DEFAULT 0 CHECK (held >= 0),
    attached          integer NOT NULL DEFAULT 0 CHECK (attached >= 0),
    sold              integer NOT NULL DEFAULT 0 CHECK (sold >= 0),
    blocked           integer NOT NULL DEFAULT 0 CHECK (blocked >= 0),
    -- One letter a seat, f h a s b; null for general admission.
    seats             text CHECK (length(seats) = capacity),
    -- Row spans in seat order; empty for general admission. Never changes.
    rows              jsonb NOT NULL,
    version           bigint NOT NULL DEFAULT 1,
    published_version bigint NOT NULL DEFAULT 0,
    dirty             boolean NOT NULL DEFAULT true,
    UNIQUE (section, position),
    CHECK (free + held + attached + sold + blocked = capacity)
) WITH (fillfactor = 30);
-- A thousand letters are shorter than a page and change all the time: compressing them would cost more than it saves.
ALTER TABLE block ALTER COLUMN seats SET STORAGE PLAIN;
-- Rows never change: out of line they are not copied with every version of the block.
ALTER TABLE block ALTER COLUMN rows SET STORAGE EXTERNAL;
CREATE INDEX block_show ON block (show);
CREATE INDEX block_dirty ON block (id) WHERE dirty;

-- Written only under the lock of its block's row, which is why it needs no reference that is checked again.
CREATE TABLE hold (
    id             uuid PRIMARY KEY,
    block          bigint NOT NULL,
    session        uuid NOT NULL,
    show           uuid NOT NULL,
    section        uuid NOT NULL,
    quantity       smallint NOT NULL CHECK (quantity > 0),
    -- Indices in the block; null for general admission.
    seats          smallint[] CHECK (cardinality(seats) = quantity),
    unit_price     bigint NOT NULL CHECK (unit_price >= 0),
    currency       text NOT NULL,
    state          text NOT NULL CHECK (state IN ('held', 'attached', 'sold', 'freed')),
    expires_at     timestamptz NOT NULL,
    order_id       uuid,
    attached_until timestamptz,
    -- Orders that detached or freed it. What they sent before, and what arrives late, has no effect any more.
    let_go         uuid[] NOT NULL DEFAULT '{}',
    pass_id        uuid,
    -- The answer to the request that placed it, with all that was frozen: labels, price, facts of the show.
    placed         jsonb NOT NULL,
    created_at     timestamptz NOT NULL,
    CHECK (state NOT IN ('attached', 'sold') OR order_id IS NOT NULL),
    CHECK ((state = 'attached') = (attached_until IS NOT NULL))
);
CREATE UNIQUE INDEX hold_live ON hold (session, show) WHERE state IN ('held', 'attached');
-- When a live hold ends by itself.
CREATE INDEX hold_ends ON hold ((coalesce(attached_until, expires_at))) WHERE state IN ('held', 'attached');

-- Requests that placed a hold, for a day.
CREATE TABLE hold_request (
    session     uuid NOT NULL,
    key         text NOT NULL,
    fingerprint text NOT NULL,
    hold        uuid NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (session, key)
);
CREATE INDEX hold_request_age ON hold_request USING brin (created_at);

-- Passes that were used or closed, for a day.
CREATE TABLE pass (
    pass_id        uuid PRIMARY KEY,
    session        uuid NOT NULL,
    show           uuid NOT NULL,
    closed_at      timestamptz,
    -- The hold that was released when the lobby closed it.
    released_block bigint,
    released_hold  uuid,
    created_at     timestamptz NOT NULL
);
CREATE INDEX pass_age ON pass USING brin (created_at);

-- What happened to each block, in the order that decides.
CREATE TABLE journal (
    block      bigint NOT NULL,
    version    bigint NOT NULL,
    hold       uuid NOT NULL,
    from_state text NOT NULL,
    to_state   text NOT NULL,
    order_id   uuid,
    step       uuid,
    at         timestamptz NOT NULL,
    PRIMARY KEY (block, version)
);

-- The generation of each stream that was filled from here; another one means that it was made anew.
CREATE TABLE meta (
    stream     text PRIMARY KEY,
    generation text NOT NULL
);
