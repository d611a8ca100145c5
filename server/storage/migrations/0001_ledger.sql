-- The ledger: who is to get what, who got it, and in which order it happened.
-- Every key contains the bucket, so that the tables can be distributed by it.
-- Enumerations are stored by their numbers in the mailing.v1 protos.

-- migrate:up

-- The shards. Updating a bucket's row takes its next journal number and is the one
-- lock under which the bucket's ledger changes, so commit order is journal order.
CREATE TABLE buckets (
  bucket      int    PRIMARY KEY,
  journal_seq bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 20);

-- How many there are is fixed here for good: 16, unless the transaction's setting `mailing.buckets` has a number.
INSERT INTO buckets (bucket)
SELECT generate_series(0, coalesce(nullif(current_setting('mailing.buckets', true), ''), '16')::int - 1);

-- The same counter for changes of clients, apart from it so that imports and
-- settling do not wait for one another.
CREATE TABLE client_change_seqs (
  bucket int    PRIMARY KEY,
  seq    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 20);

INSERT INTO client_change_seqs (bucket) SELECT bucket FROM buckets;

-- client id = client_no * buckets + bucket: an id names its bucket.
CREATE SEQUENCE client_no;
CREATE SEQUENCE mailing_id;
CREATE SEQUENCE batch_no;

CREATE TABLE clients (
  bucket        int         NOT NULL,
  id            bigint      NOT NULL,
  phone         text        NOT NULL CHECK (phone::bigint BETWEEN 1000000 AND 999999999999999),
  operator_code text        NOT NULL DEFAULT '',
  tag           text        NOT NULL DEFAULT '',
  timezone      text        NOT NULL,
  window_start  time,
  window_length interval,
  attributes    jsonb       NOT NULL DEFAULT '{}',
  opted_out     boolean     NOT NULL DEFAULT false,
  version       int         NOT NULL DEFAULT 1,
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (bucket, id),
  CHECK ((window_start IS NULL) = (window_length IS NULL)),
  CHECK (window_length > interval '0' AND window_length <= interval '24 hours')
);

-- A phone is unique across buckets; its client stays in the bucket of the first one.
CREATE TABLE client_phones (
  phone     text   PRIMARY KEY,
  bucket    int    NOT NULL,
  client_id bigint NOT NULL
);

-- Which clients were written, in commit order: running mailings read on from here
-- instead of looking at every client again. One row per write, not per client.
CREATE TABLE client_changes (
  bucket     int      NOT NULL,
  seq        bigint   NOT NULL,
  client_ids bigint[] NOT NULL,
  at         timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (bucket, seq)
);
ALTER TABLE client_changes ALTER client_ids SET STORAGE EXTERNAL;

-- Definition and state only; counters stand in mailing_counts.
CREATE TABLE mailings (
  id                bigint      PRIMARY KEY,
  title             text        NOT NULL DEFAULT '',
  text              text        NOT NULL CHECK (text <> ''),
  filter            jsonb       NOT NULL DEFAULT '{}',
  starts_at         timestamptz NOT NULL,
  ends_at           timestamptz,
  state             smallint    NOT NULL CHECK (state BETWEEN 1 AND 5),
  audience_mode     smallint    NOT NULL CHECK (audience_mode BETWEEN 1 AND 2),
  semantics         smallint    NOT NULL CHECK (semantics BETWEEN 1 AND 2),
  priority          int         NOT NULL DEFAULT 0,
  max_rate          float8      NOT NULL DEFAULT 0,
  endpoint          text        NOT NULL DEFAULT '',
  max_attempts      int         NOT NULL,
  initial_backoff   interval    NOT NULL,
  max_backoff       interval    NOT NULL,
  labels            jsonb       NOT NULL DEFAULT '{}',
  recheck_at        timestamptz NOT NULL DEFAULT 'infinity',
  recheck_interval  interval    NOT NULL DEFAULT interval '1 s',
  version           int         NOT NULL DEFAULT 1,
  created_at        timestamptz NOT NULL DEFAULT now(),
  updated_at        timestamptz NOT NULL DEFAULT now(),
  CHECK (ends_at > starts_at)
);
-- What the planner asks of mailings that are not over: what starts, ends or is to be
-- looked at next.
CREATE INDEX mailings_scheduled ON mailings (starts_at) WHERE state = 1;
CREATE INDEX mailings_running ON mailings (ends_at) WHERE state = 2;
CREATE INDEX mailings_paused ON mailings (ends_at) WHERE state = 3;
CREATE INDEX mailings_recheck ON mailings (recheck_at) WHERE state = 2;

CREATE TABLE mailing_counts (
  bucket     int      NOT NULL,
  mailing_id bigint   NOT NULL,
  status     smallint NOT NULL,
  n          bigint   NOT NULL,
  attempts   bigint   NOT NULL DEFAULT 0,
  first_at   timestamptz NOT NULL DEFAULT now(),
  last_at    timestamptz NOT NULL DEFAULT now(),
  -- Two earlier readings of n, moved along every two seconds: they give the rate.
  mark_at    timestamptz NOT NULL DEFAULT now(),
  mark_n     bigint   NOT NULL DEFAULT 0,
  past_at    timestamptz NOT NULL DEFAULT now(),
  past_n     bigint   NOT NULL DEFAULT 0,
  PRIMARY KEY (bucket, mailing_id, status)
) WITH (fillfactor = 20);

-- How far a mailing's audience is expanded in a bucket.
CREATE TABLE expansions (
  bucket         int    NOT NULL,
  mailing_id     bigint NOT NULL,
  last_client_id bigint NOT NULL DEFAULT 0,
  finished       boolean NOT NULL DEFAULT false,
  change_seq     bigint NOT NULL,
  started_at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (bucket, mailing_id)
) WITH (fillfactor = 50);
CREATE INDEX expansions_unfinished ON expansions (mailing_id) WHERE NOT finished;

-- Open work only. The clients are stored out of line, so a claim does not rewrite them.
CREATE TABLE batches (
  bucket      int         NOT NULL,
  mailing_id  bigint      NOT NULL,
  no          bigint      NOT NULL,
  client_ids  bigint[]    NOT NULL,
  due_at      timestamptz NOT NULL,
  fence       int         NOT NULL DEFAULT 0,
  lease_until timestamptz NOT NULL DEFAULT '-infinity',
  holder      uuid,
  PRIMARY KEY (bucket, mailing_id, no)
) WITH (fillfactor = 50);
ALTER TABLE batches ALTER client_ids SET STORAGE EXTERNAL;
CREATE INDEX batches_due ON batches (due_at);

-- The ledger's rows. Nothing but the key is indexed, so settling stays a HOT update.
CREATE TABLE messages (
  mailing_id      bigint      NOT NULL,
  client_id       bigint      NOT NULL,
  created_at      timestamptz NOT NULL DEFAULT now(),
  due_at          timestamptz NOT NULL,
  settled_at      timestamptz,
  endpoint_code   bigint,
  bucket          int         NOT NULL,
  duration_ms     int,
  status          smallint    NOT NULL DEFAULT 1 CHECK (status BETWEEN 1 AND 7),
  reason          smallint    NOT NULL DEFAULT 0,
  attempts        smallint    NOT NULL DEFAULT 0,
  endpoint_status smallint,
  PRIMARY KEY (bucket, mailing_id, client_id),
  CHECK ((status = 1) = (settled_at IS NULL))
) WITH (fillfactor = 50);

-- Failed attempts only: a success stands in its message.
CREATE TABLE attempts (
  bucket           int         NOT NULL,
  mailing_id       bigint      NOT NULL,
  client_id        bigint      NOT NULL,
  number           smallint    NOT NULL,
  at               timestamptz NOT NULL,
  endpoint         text        NOT NULL,
  error_class      smallint    NOT NULL,
  endpoint_status  smallint,
  endpoint_code    bigint,
  duration_ms      int         NOT NULL,
  response_excerpt text        NOT NULL DEFAULT '',
  PRIMARY KEY (bucket, mailing_id, client_id, number)
);

-- What happened, in order: one row per settle. `statuses` has one entry per client,
-- or a single one for all of them.
CREATE TABLE journal (
  bucket     int         NOT NULL,
  seq        bigint      NOT NULL,
  mailing_id bigint      NOT NULL,
  at         timestamptz NOT NULL DEFAULT now(),
  client_ids bigint[]    NOT NULL,
  statuses   smallint[]  NOT NULL,
  PRIMARY KEY (bucket, seq)
);
ALTER TABLE journal ALTER client_ids SET STORAGE EXTERNAL;

-- Which creating call made what, so that a repeated call makes nothing.
CREATE TABLE requests (
  bucket      int    NOT NULL,
  request_id  uuid   NOT NULL,
  method      text   NOT NULL,
  digest      bytea  NOT NULL,
  resource_id bigint NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (bucket, request_id)
);

-- The two questions about a receive window, as expressions that Postgres inlines (STABLE:
-- one declared IMMUTABLE would not be, since timestamptz + interval is only stable):
-- the first moment at or after `moment` inside the window, and the end of that window.
-- Yesterday's window may still be open, so the days before and after are tried in order.
CREATE FUNCTION window_opens_at(timezone text, window_start time, window_length interval, moment timestamptz)
RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN window_start IS NULL THEN moment
    WHEN (((moment AT TIME ZONE timezone)::date - 1) + window_start) AT TIME ZONE timezone + window_length > moment
      THEN greatest((((moment AT TIME ZONE timezone)::date - 1) + window_start) AT TIME ZONE timezone, moment)
    WHEN ((moment AT TIME ZONE timezone)::date + window_start) AT TIME ZONE timezone + window_length > moment
      THEN greatest(((moment AT TIME ZONE timezone)::date + window_start) AT TIME ZONE timezone, moment)
    ELSE (((moment AT TIME ZONE timezone)::date + 1) + window_start) AT TIME ZONE timezone
  END
$$;

CREATE FUNCTION window_closes_at(timezone text, window_start time, window_length interval, moment timestamptz)
RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN window_start IS NULL THEN 'infinity'::timestamptz
    WHEN (((moment AT TIME ZONE timezone)::date - 1) + window_start) AT TIME ZONE timezone + window_length > moment
      THEN (((moment AT TIME ZONE timezone)::date - 1) + window_start) AT TIME ZONE timezone + window_length
    WHEN ((moment AT TIME ZONE timezone)::date + window_start) AT TIME ZONE timezone + window_length > moment
      THEN ((moment AT TIME ZONE timezone)::date + window_start) AT TIME ZONE timezone + window_length
    ELSE (((moment AT TIME ZONE timezone)::date + 1) + window_start) AT TIME ZONE timezone + window_length
  END
$$;

-- What an array says of a client, when it runs parallel to an ascending array of clients; an
-- array of a single entry says it of all. Inlined, too; width_bucket is a binary search.
CREATE FUNCTION entry_of(entries anyarray, client_id bigint, client_ids bigint[])
RETURNS anyelement LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE cardinality(entries) WHEN 1 THEN entries[1] ELSE entries[width_bucket(client_id, client_ids)] END
$$;

-- migrate:down

DROP FUNCTION entry_of(anyarray, bigint, bigint[]);
DROP FUNCTION window_closes_at(text, time, interval, timestamptz);
DROP FUNCTION window_opens_at(text, time, interval, timestamptz);
DROP TABLE requests, journal, attempts, messages, batches, expansions, mailing_counts,
  mailings, client_changes, client_phones, clients, client_change_seqs, buckets;
DROP SEQUENCE batch_no, mailing_id, client_no;
