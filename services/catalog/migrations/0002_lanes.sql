-- A lane is a partition's messages to one destination, which the first two words of their subject name. Each is read by
-- itself, however many messages wait in the others. The table is a queue, empty but for moments: the index is built within
-- milliseconds. Versions before this one need not know of it.
CREATE INDEX outbox_lane ON outbox
    ((split_part(subject, '.', 1) || '.' || split_part(subject, '.', 2)) COLLATE "C", partition, id);
