-- An import: rows are staged by COPY and merged at the end, all of them or none.

-- name: create_staging
-- Phones sort byte by byte: it is faster than by any locale.
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
-- The merge sorts and joins everything that was staged. Until the end of the transaction.
SET LOCAL work_mem = '64MB';

-- name: sample_little
-- Statistics of a few thousand rows are enough to plan the merge by.
SET LOCAL default_statistics_target = 10;

-- name: measure_staging
-- Temporary tables get no statistics by themselves, and the merge is planned by them.
ANALYZE import_rows;

-- name: create_latest
-- Of each phone the last row, beside what is stored: one look at the clients, so that every
-- row is either new, or differs, or is stored exactly so. In the order of phones, where
-- neighbours in the index come together. coalesce takes a number for new ones only.
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
-- The usual case, in which nobody took one of the phones since create_latest looked; fails in
-- the other. In the order of phones, so that two imports never wait for one another.
INSERT INTO client_phones (phone, bucket, client_id)
SELECT phone, bucket, id FROM import_latest WHERE is_new ORDER BY phone;

-- name: claim_fresh_phones
-- The same, passing over phones that are taken: half as fast.
INSERT INTO client_phones (phone, bucket, client_id)
SELECT phone, bucket, id FROM import_latest WHERE is_new ORDER BY phone
ON CONFLICT DO NOTHING;

-- name: adopt_taken_phones
-- Rows whose phone somebody else took are no longer new: they meet the client of that phone.
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
-- Returns fewer than there were when somebody else deleted one since create_latest looked.
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
-- What was written, by bucket and in pieces of some 5,000 ids.
CREATE TEMPORARY TABLE import_touched (
  bucket     int      NOT NULL,
  part       bigint   NOT NULL,
  client_ids bigint[] NOT NULL
) ON COMMIT DROP;

-- name: keep_touched_plain
-- As client_changes stores them, so that nothing is compressed on the way.
ALTER TABLE import_touched ALTER client_ids SET STORAGE EXTERNAL;

-- name: fill_touched
-- 80,000 numbers in a row are spread over 16 buckets.
INSERT INTO import_touched (bucket, part, client_ids)
SELECT coalesce(home, bucket), id / (80000 * (SELECT count(*) FROM buckets)), array_agg(id)
FROM import_latest
WHERE differs
GROUP BY 1, 2;

-- name: list_touched_buckets
SELECT DISTINCT bucket FROM import_touched ORDER BY bucket;

-- name: record_imported_changes
-- As record_client_changes, with the ids that stand in import_touched.
WITH pieces AS (
  SELECT client_ids, row_number() OVER (ORDER BY part) AS number, count(*) OVER () AS pieces
  FROM import_touched WHERE bucket = $1
), tick AS (
  UPDATE client_change_seqs SET seq = seq + (SELECT count(*) FROM pieces) WHERE bucket = $1 RETURNING seq
)
INSERT INTO client_changes (bucket, seq, client_ids)
SELECT $1, tick.seq - p.pieces + p.number, p.client_ids FROM pieces p CROSS JOIN tick;
