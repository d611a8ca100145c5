-- An import: rows are staged by COPY and merged at the end, all of them or none.

-- name: create_staging
-- Phones sort by bytes, which is faster than by any locale.
CREATE TEMPORARY TABLE import_rows (
  position      bigint  NOT NULL,
  bucket        int     NOT NULL,
  phone         text    COLLATE "C" NOT NULL,
  operator_code text    NOT NULL,
  tag           text    NOT NULL,
  timezone      text    NOT NULL,
  window_start  time,
  window_length interval,
  attributes    jsonb   NOT NULL,
  opted_out     boolean NOT NULL
) ON COMMIT DROP;

-- name: widen_memory
-- For the rest of the transaction: the merge sorts and joins all staged rows.
SET LOCAL work_mem = '64MB';

-- name: sample_little
-- A sample of a few thousand rows is enough to plan the merge.
SET LOCAL default_statistics_target = 10;

-- name: measure_staging
-- Temporary tables get no statistics by themselves, and the plan of the merge needs them.
ANALYZE import_rows;

-- name: create_latest
-- The last row of each phone, compared with the stored client: it is new, differs, or is unchanged.
-- In the order of phones, so that neighbours in the index are read together. coalesce takes a number
-- for new clients only.
CREATE TEMPORARY TABLE import_latest ON COMMIT DROP AS
SELECT s.*, c.bucket AS home, c.id IS NULL AS is_new,
  coalesce(c.id, nextval('client_no') * (SELECT count(*) FROM buckets) + s.bucket) AS id,
  (c.operator_code, c.tag, c.timezone, c.window_start, c.window_length, c.attributes, c.opted_out)
    IS DISTINCT FROM
    (s.operator_code, s.tag, s.timezone, s.window_start, s.window_length, s.attributes, s.opted_out) AS differs
FROM (SELECT DISTINCT ON (phone) * FROM import_rows ORDER BY phone, position DESC) s
LEFT JOIN client_phones p ON p.phone = s.phone
LEFT JOIN clients c ON c.bucket = p.bucket AND c.id = p.client_id;

-- name: count_latest
SELECT (SELECT count(*) FROM import_rows) AS staged, count(*) AS phones,
  count(*) FILTER (WHERE is_new) AS fresh, count(*) FILTER (WHERE differs AND NOT is_new) AS changed
FROM import_latest;

-- name: insert_fresh_phones
-- The usual case, in which nobody took one of the phones since create_latest; fails otherwise. In the
-- order of phones, so that two imports never deadlock.
INSERT INTO client_phones (phone, bucket, client_id)
SELECT phone, bucket, id FROM import_latest WHERE is_new ORDER BY phone;

-- name: claim_fresh_phones
-- The same without phones that are taken: half as fast.
INSERT INTO client_phones (phone, bucket, client_id)
SELECT phone, bucket, id FROM import_latest WHERE is_new ORDER BY phone
ON CONFLICT DO NOTHING;

-- name: adopt_taken_phones
-- Rows whose phone somebody else took are no longer new: they update the client of that phone.
UPDATE import_latest s
SET is_new = false, home = c.bucket, id = c.id,
  differs = (c.operator_code, c.tag, c.timezone, c.window_start, c.window_length, c.attributes, c.opted_out)
    IS DISTINCT FROM
    (s.operator_code, s.tag, s.timezone, s.window_start, s.window_length, s.attributes, s.opted_out)
FROM client_phones p
JOIN clients c ON c.bucket = p.bucket AND c.id = p.client_id
WHERE s.is_new AND p.phone = s.phone AND p.client_id <> s.id;

-- name: insert_fresh_clients
INSERT INTO clients (
  bucket, id, phone, operator_code, tag, timezone, window_start, window_length, attributes, opted_out
)
SELECT bucket, id, phone, operator_code, tag, timezone, window_start, window_length, attributes, opted_out
FROM import_latest
WHERE is_new;

-- name: update_changed_clients
-- Returns fewer than were counted when somebody else deleted a client since create_latest.
WITH written AS (
  UPDATE clients c
  SET operator_code = s.operator_code, tag = s.tag, timezone = s.timezone, window_start = s.window_start,
    window_length = s.window_length, attributes = s.attributes, opted_out = s.opted_out,
    version = c.version + 1, updated_at = now()
  FROM import_latest s
  WHERE s.differs AND NOT s.is_new AND c.bucket = s.home AND c.id = s.id AND c.phone = s.phone
  RETURNING c.id
)
SELECT count(*) FROM written;

-- name: create_touched
-- The ids of written clients, by bucket and in pieces of some 5,000.
CREATE TEMPORARY TABLE import_touched (
  bucket     int      NOT NULL,
  part       bigint   NOT NULL,
  client_ids bigint[] NOT NULL
) ON COMMIT DROP;

-- name: keep_touched_plain
-- Stored as in client_changes, so that nothing is compressed in between.
ALTER TABLE import_touched ALTER client_ids SET STORAGE EXTERNAL;

-- name: fill_touched
-- 80,000 consecutive numbers are some 5,000 in each of 16 buckets.
INSERT INTO import_touched (bucket, part, client_ids)
SELECT coalesce(home, bucket), id / (80000 * (SELECT count(*) FROM buckets)), array_agg(id)
FROM import_latest
WHERE differs
GROUP BY 1, 2;

-- name: list_touched_buckets
SELECT DISTINCT bucket FROM import_touched ORDER BY bucket;

-- name: record_imported_changes
-- Like record_client_changes, with the ids from import_touched.
WITH pieces AS (
  SELECT client_ids, row_number() OVER (ORDER BY part) AS number, count(*) OVER () AS pieces
  FROM import_touched WHERE bucket = $bucket
), tick AS (
  UPDATE client_change_seqs SET seq = seq + (SELECT count(*) FROM pieces) WHERE bucket = $bucket RETURNING seq
)
INSERT INTO client_changes (bucket, seq, client_ids)
SELECT $bucket, tick.seq - p.pieces + p.number, p.client_ids FROM pieces p CROSS JOIN tick;
