-- Who tries an open mail now. A process that starts takes over what one of its name had leased and did not finish.
ALTER TABLE mail ADD COLUMN leased_by text;
