-- What operators see and steer: the replicas that are alive, settings that hold for all of
-- them, and the log.

-- migrate:up

-- One row per dispatcher. It is alive until `beats_until`, when its next beat is overdue.
CREATE TABLE replicas (
  id          uuid        PRIMARY KEY,
  host        text        NOT NULL,
  pid         int         NOT NULL,
  started_at  timestamptz NOT NULL,
  beat_at     timestamptz NOT NULL DEFAULT now(),
  beats_until timestamptz NOT NULL,
  status      jsonb       NOT NULL
) WITH (fillfactor = 50);

-- One row. NULL is the value of the environment; times are in seconds.
CREATE TABLE dispatch_settings (
  one             boolean     PRIMARY KEY DEFAULT true CHECK (one),
  poll_min        float8      CHECK (poll_min > 0),
  poll_max        float8      CHECK (poll_max >= poll_min),
  recheck_min     float8      CHECK (recheck_min > 0),
  recheck_max     float8      CHECK (recheck_max >= recheck_min),
  max_concurrency int         CHECK (max_concurrency > 0),
  paused          boolean     NOT NULL DEFAULT false,
  version         int         NOT NULL DEFAULT 1,
  updated_at      timestamptz NOT NULL DEFAULT now()
);

INSERT INTO dispatch_settings DEFAULT VALUES;

-- What happened, for people. An entry about a client stands in the client's bucket, every
-- other one in bucket 0.
CREATE TABLE log (
  bucket     int         NOT NULL,
  no         bigint      NOT NULL,
  at         timestamptz NOT NULL DEFAULT now(),
  level      smallint    NOT NULL CHECK (level BETWEEN 1 AND 4),
  event      text        NOT NULL,
  text       text        NOT NULL,
  mailing_id bigint      NOT NULL DEFAULT 0,
  message_id bigint      NOT NULL DEFAULT 0,
  client_id  bigint      NOT NULL DEFAULT 0,
  principal  text        NOT NULL DEFAULT '',
  details    jsonb       NOT NULL DEFAULT '{}',
  PRIMARY KEY (bucket, no)
);
CREATE INDEX log_of_mailing ON log (bucket, mailing_id, no);

-- Numbers are taken by updating a bucket's row, as the last lock of a transaction: so commit
-- order is number order. Apart from `buckets`, so that settling waits for nobody's log.
CREATE TABLE log_seqs (
  bucket int    PRIMARY KEY,
  seq    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 20);

INSERT INTO log_seqs (bucket) SELECT bucket FROM buckets;

-- Entries up to `floor` are gone.
CREATE TABLE log_floors (
  bucket int    PRIMARY KEY,
  floor  bigint NOT NULL DEFAULT 0
);

INSERT INTO log_floors (bucket) SELECT bucket FROM buckets;

-- When the audience was complete for the first time.
ALTER TABLE mailings ADD COLUMN expanded_at timestamptz;
UPDATE mailings SET expanded_at = updated_at WHERE state <> 1;

-- migrate:down

ALTER TABLE mailings DROP COLUMN expanded_at;
DROP TABLE log_floors, log_seqs, log, dispatch_settings, replicas;
