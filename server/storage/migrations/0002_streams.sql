-- What streams of the journal need: which database a resume token belongs to, and up to
-- where each bucket's journal was forgotten.

-- migrate:up

-- One row. Whoever brings a database back from an old backup gives it a new epoch: tokens of
-- the lost time are then refused instead of being misread.
CREATE TABLE journal_epochs (
  epoch      uuid        PRIMARY KEY,
  created_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO journal_epochs (epoch) VALUES (gen_random_uuid());

-- Entries up to `floor` are gone. Apart from `buckets`, so that forgetting never waits for a
-- settle, nor a settle for it.
CREATE TABLE journal_floors (
  bucket int    PRIMARY KEY,
  floor  bigint NOT NULL DEFAULT 0
);

INSERT INTO journal_floors (bucket) SELECT bucket FROM buckets;

-- migrate:down

DROP TABLE journal_floors, journal_epochs;
