-- Commands that were taken from the queue, and what became of them. The key at the provider is the step's id.
CREATE TABLE operation (
    step_id       uuid        PRIMARY KEY,
    order_id      uuid        NOT NULL,
    action        text        NOT NULL CHECK (action IN ('authorise', 'capture', 'void', 'refund')),
    amount        bigint      NOT NULL CHECK (amount >= 0),
    currency      text        NOT NULL,
    -- The authorise step that a capture, void or refund is about.
    authorisation uuid        CHECK ((action = 'authorise') = (authorisation IS NULL)),
    -- An authorise step that a void has given up: it is cancelled at the provider instead of asked for.
    given_up      boolean     NOT NULL DEFAULT false CHECK (NOT given_up OR action = 'authorise'),
    traceparent   text,
    taken_at      timestamptz NOT NULL DEFAULT now(),

    -- Who drives it until when: before `due_at` nobody else takes it up.
    due_at        timestamptz NOT NULL,
    leased_by     text,
    attempts      integer     NOT NULL DEFAULT 0,
    last_error    text,

    outcome       text        CHECK (outcome IN ('succeeded', 'declined', 'refused')),
    reference     text        CHECK ((outcome IS NOT DISTINCT FROM 'succeeded') = (reference IS NOT NULL)),
    reason        text        CHECK ((outcome IN ('declined', 'refused')) IS TRUE = (reason IS NOT NULL)),
    settled_at    timestamptz CHECK ((outcome IS NULL) = (settled_at IS NULL))
);

CREATE INDEX operation_due ON operation (due_at) WHERE outcome IS NULL;
CREATE INDEX operation_authorisation ON operation (authorisation) WHERE authorisation IS NOT NULL;

-- The ledger: double entry, minor units, debit above zero and credit below. Only what moved money is booked.
CREATE TABLE entry (
    id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    step_id   uuid        NOT NULL REFERENCES operation (step_id),
    account   text        NOT NULL CHECK (account IN ('receivable:psp', 'sales', 'refunds')),
    amount    bigint      NOT NULL,
    currency  text        NOT NULL,
    booked_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (step_id, account)
);

-- Every operation's entries sum to zero, checked when its transaction commits.
CREATE FUNCTION entries_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM entry WHERE step_id = NEW.step_id GROUP BY currency HAVING sum(amount) <> 0) THEN
        RAISE EXCEPTION 'the entries of step % do not sum to zero', NEW.step_id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER entry_balance AFTER INSERT ON entry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION entries_balance();

-- A mistake is corrected by another entry.
CREATE FUNCTION entries_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is only added to' USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER entry_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON entry
    FOR EACH STATEMENT EXECUTE FUNCTION entries_stay();

-- The provider's webhooks that woke an operation: the same one wakes once.
CREATE TABLE webhook (
    id          text        PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhook_received ON webhook (received_at);
