-- What was asked and what came of it. Rows are only ever added: this is the witness of what was charged.
CREATE TABLE operation (
    key         text        PRIMARY KEY,
    seq         bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    kind        text        NOT NULL CHECK (kind IN ('authorise', 'capture', 'void', 'refund', 'cancel')),
    status      text        NOT NULL CHECK (status IN
                    ('authorised', 'captured', 'voided', 'refunded', 'declined', 'refused', 'cancelled')),
    id          text        UNIQUE,
    -- The authorisation that a capture or void is about, the capture that a refund is about.
    about       text,
    amount      bigint      CHECK (amount >= 0),
    currency    text,
    -- The merchant's own name for the purchase.
    reference   text,
    reason      text,
    -- How the card of an authorisation behaves.
    card        text,
    -- SHA-256 of the request; absent in a tombstone, which refuses every request.
    fingerprint bytea,
    at          timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- An authorisation ends once, captured or voided, whatever the code does.
CREATE UNIQUE INDEX operation_end ON operation (about) WHERE status IN ('captured', 'voided');
CREATE INDEX operation_refund ON operation (about) WHERE status = 'refunded';

-- What the merchant has yet to be told about.
CREATE TABLE webhook (
    event_id text        PRIMARY KEY,
    key      text        NOT NULL REFERENCES operation (key),
    due_at   timestamptz NOT NULL,
    attempts integer     NOT NULL DEFAULT 0
);
CREATE INDEX webhook_due ON webhook (due_at);
