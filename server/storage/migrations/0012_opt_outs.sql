-- When and how each client opted out.

-- migrate:up

-- Filled from here on: of older opt-outs neither is known. The source is a number of OptOutOrigin; word and
-- endpoint belong to what clients send and to what endpoints answer.
ALTER TABLE clients
  ADD COLUMN opt_out_at       timestamptz,
  ADD COLUMN opt_out_source   smallint NOT NULL DEFAULT 0 CHECK (opt_out_source BETWEEN 0 AND 4),
  ADD COLUMN opt_out_word     text     NOT NULL DEFAULT '',
  ADD COLUMN opt_out_endpoint text     NOT NULL DEFAULT '';

-- migrate:down

ALTER TABLE clients
  DROP COLUMN opt_out_at, DROP COLUMN opt_out_source, DROP COLUMN opt_out_word, DROP COLUMN opt_out_endpoint;
