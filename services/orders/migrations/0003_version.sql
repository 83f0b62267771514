-- Counts the changes of an order: whoever writes one says which version they read, and writes nothing if it is another.
ALTER TABLE orders ADD COLUMN version bigint NOT NULL DEFAULT 1;
