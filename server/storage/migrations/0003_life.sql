-- What the whole life of a mailing needs: counters by reason, the figures of the report, retries,
-- rates and breakers that all replicas share, and how much a client got lately.

-- migrate:up

-- A mailing that no frequency cap holds back.
ALTER TABLE mailings ADD COLUMN important boolean NOT NULL DEFAULT false;

-- How many of the attempts do not count against the limit: those made before RetryMailing,
-- and those that failed because the endpoint was down. NULL, which takes no room, is none.
ALTER TABLE messages ADD COLUMN forgiven smallint;

-- Whether somebody held the batch and may have sent of it without settling: a holder that dies
-- leaves its name, and who then claims it and gives it back unheard of does not make it certain.
ALTER TABLE batches ADD COLUMN doubtful boolean NOT NULL DEFAULT false;

-- Counters by status and reason. PENDING and DELIVERED have reason 0 only.
ALTER TABLE mailing_counts ADD COLUMN reason smallint NOT NULL DEFAULT 0;
ALTER TABLE mailing_counts DROP CONSTRAINT mailing_counts_pkey;
ALTER TABLE mailing_counts ADD PRIMARY KEY (bucket, mailing_id, status, reason);

-- The rows so far keep their attempts and give their messages to rows with a reason.
INSERT INTO mailing_counts (bucket, mailing_id, status, reason, n, first_at, last_at)
SELECT bucket, mailing_id, status, reason, count(*), min(settled_at), max(settled_at)
FROM messages WHERE status > 2 AND reason > 0
GROUP BY 1, 2, 3, 4;
UPDATE mailing_counts SET n = 0 WHERE status > 2 AND reason = 0;

-- How many messages settled in the present slot of five seconds and in the one before it: from
-- these of all buckets the rate is read.
ALTER TABLE mailing_counts DROP COLUMN mark_at, DROP COLUMN mark_n, DROP COLUMN past_at, DROP COLUMN past_n;
ALTER TABLE mailing_counts ADD COLUMN slot bigint NOT NULL DEFAULT 0;
ALTER TABLE mailing_counts ADD COLUMN slot_n bigint NOT NULL DEFAULT 0;
ALTER TABLE mailing_counts ADD COLUMN before_n bigint NOT NULL DEFAULT 0;

CREATE FUNCTION rate_slot(moment timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT floor(extract(epoch FROM moment) / 5)::bigint
$$;

-- How much of its slot has passed at a moment, 0 to 1.
CREATE FUNCTION rate_slot_share(moment timestamptz) RETURNS float8 LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT (extract(epoch FROM moment) / 5 % 1)::float8
$$;

-- The figures of the report, counted as messages settle. `kind` says what `key` is:
-- 1 attempts that a settled message took, 2 a latency_bin of a delivered one, 3 and 4 the minute
-- (since the epoch) in which messages were delivered or failed.
CREATE TABLE mailing_figures (
  bucket     int      NOT NULL,
  mailing_id bigint   NOT NULL,
  kind       smallint NOT NULL,
  key        bigint   NOT NULL,
  n          bigint   NOT NULL,
  PRIMARY KEY (bucket, mailing_id, kind, key)
) WITH (fillfactor = 50);

-- Bins that are an eighth wide: bin k begins at exp(k / 8) - 1 milliseconds.
CREATE FUNCTION latency_bin(milliseconds int) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT floor(ln(milliseconds + 1.0::float8) * 8)::int
$$;

INSERT INTO mailing_figures (bucket, mailing_id, kind, key, n)
SELECT bucket, mailing_id, kind, key, count(*)
FROM messages CROSS JOIN LATERAL (
  VALUES
    (1, attempts::bigint, status <> 1),
    (2, latency_bin(duration_ms)::bigint, status = 2),
    (3, floor(extract(epoch FROM settled_at) / 60)::bigint, status = 2),
    (4, floor(extract(epoch FROM settled_at) / 60)::bigint, status = 3)
) AS f (kind, key, counts)
WHERE counts AND key IS NOT NULL
GROUP BY 1, 2, 3, 4;

-- How an endpoint is doing, for all replicas: `breaker` is 1 closed, 2 open, 3 half open (a
-- probe is under way). Before `probe_at` nobody may send there unless it is closed.
CREATE TABLE endpoints (
  name       text        PRIMARY KEY,
  breaker    smallint    NOT NULL DEFAULT 1 CHECK (breaker BETWEEN 1 AND 3),
  changed_at timestamptz NOT NULL DEFAULT now(),
  probe_at   timestamptz NOT NULL DEFAULT now(),
  probes     int         NOT NULL DEFAULT 0,
  prober     uuid,
  last_error text        NOT NULL DEFAULT ''
) WITH (fillfactor = 50);

-- Moments at which requests may start, given out to replicas in a row (the generic cell rate
-- algorithm): the last grant began at `since`, the next one begins at `next_at` at the earliest.
-- `key` is `mailing/ID` or `endpoint/NAME`.
CREATE TABLE rate_slots (
  key     text        PRIMARY KEY,
  since   timestamptz NOT NULL DEFAULT now(),
  next_at timestamptz NOT NULL DEFAULT now(),
  granted int         NOT NULL DEFAULT 0
) WITH (fillfactor = 20);

-- When which mailings were last sent to a client, kept only where a frequency cap is set: two arrays
-- that run parallel.
CREATE TABLE client_sends (
  bucket      int           NOT NULL,
  client_id   bigint        NOT NULL,
  mailing_ids bigint[]      NOT NULL,
  sent_at     timestamptz[] NOT NULL,
  PRIMARY KEY (bucket, client_id)
) WITH (fillfactor = 70);

-- migrate:down

ALTER TABLE mailing_counts DROP COLUMN slot, DROP COLUMN slot_n, DROP COLUMN before_n;
ALTER TABLE mailing_counts ADD COLUMN mark_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE mailing_counts ADD COLUMN mark_n bigint NOT NULL DEFAULT 0;
ALTER TABLE mailing_counts ADD COLUMN past_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE mailing_counts ADD COLUMN past_n bigint NOT NULL DEFAULT 0;
DROP FUNCTION rate_slot_share(timestamptz);
DROP FUNCTION rate_slot(timestamptz);
DROP TABLE client_sends, rate_slots, endpoints, mailing_figures;
DROP FUNCTION latency_bin(int);
DELETE FROM mailing_counts WHERE status > 2 AND reason = 0 AND attempts = 0;
UPDATE mailing_counts k SET n = (
  SELECT count(*) FROM messages m WHERE m.bucket = k.bucket AND m.mailing_id = k.mailing_id AND m.status = k.status
) WHERE status > 2 AND reason = 0;
DELETE FROM mailing_counts WHERE reason > 0;
ALTER TABLE mailing_counts DROP CONSTRAINT mailing_counts_pkey;
ALTER TABLE mailing_counts DROP COLUMN reason;
ALTER TABLE mailing_counts ADD PRIMARY KEY (bucket, mailing_id, status);
ALTER TABLE batches DROP COLUMN doubtful;
ALTER TABLE messages DROP COLUMN forgiven;
ALTER TABLE mailings DROP COLUMN important;
