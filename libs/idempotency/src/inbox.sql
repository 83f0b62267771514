-- Which events this service has taken, by their ce-id. The row is written in the transaction of the event's effect.
CREATE TABLE inbox (
    ce_id text PRIMARY KEY,
    seen_at timestamptz NOT NULL DEFAULT now()
);
-- Rows come in the order of time, so the smallest kind of index is enough for purging.
CREATE INDEX inbox_seen_at ON inbox USING brin (seen_at);
