-- Holds and journal of a show are kept until it has been over for some days, and then deleted a batch at a time. Whoever
-- compares them with something else must leave out every show whose history is not kept any more.
ALTER TABLE show ADD COLUMN history text NOT NULL DEFAULT 'kept' CHECK (history IN ('kept', 'going', 'gone'));
-- What housekeeping looks at: shows in the order in which they end.
CREATE INDEX show_history ON show (starts_at) WHERE history <> 'gone';
