-- Since when the line can be heard without a break: from then on a holder's silence counts.
ALTER TABLE show ADD COLUMN heard_from timestamptz NOT NULL DEFAULT now();
