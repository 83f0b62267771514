-- A refund that the provider refused for good is asked for again, as another step with a key of its own: what was refused
-- stays refused under its key. Every other step happens once in an order, as before.
ALTER TABLE step ADD COLUMN nth smallint NOT NULL DEFAULT 1 CHECK (nth = 1 OR (nth > 1 AND kind = 'refund'));
ALTER TABLE step DROP CONSTRAINT step_once, ADD CONSTRAINT step_once UNIQUE (order_id, kind, nth);
