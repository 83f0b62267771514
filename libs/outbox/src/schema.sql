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
-- A lane is a partition's messages to one destination, the first two words of their subject. This index finds the first
-- messages of each lane, however many there are in others.
CREATE INDEX outbox_lane ON outbox
    ((split_part(subject, '.', 1) || '.' || split_part(subject, '.', 2)) COLLATE "C", partition, id);
