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
  opted_out     boolean,
  spoken        int     NOT NULL
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

-- fragment: columns
operator_code, tag, timezone, window_start, window_length, attributes, opted_out

-- fragment: stored
c.operator_code, c.tag, c.timezone, c.window_start, c.window_length, c.attributes, c.opted_out

-- fragment: merged_attributes
CASE WHEN s.spoken & {Spoken.ATTRIBUTES} = 0 THEN c.attributes
    WHEN $attribute_names::text[] IS NULL THEN s.attributes
    ELSE (c.attributes - $attribute_names) || (
      SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(s.attributes) WHERE key = ANY ($attribute_names)
    ) END

-- fragment: merged
-- What a stored client `c` is to be after the row `s`: what the row does not speak of stays. In the
-- order of `columns`.
CASE WHEN s.spoken & {Spoken.OPERATOR_CODE} = 0 THEN c.operator_code ELSE s.operator_code END,
  CASE WHEN s.spoken & {Spoken.TAG} = 0 THEN c.tag ELSE s.tag END,
  CASE WHEN s.spoken & {Spoken.TIMEZONE} = 0 THEN c.timezone ELSE s.timezone END,
  CASE WHEN s.spoken & {Spoken.WINDOW} = 0 THEN c.window_start ELSE s.window_start END,
  CASE WHEN s.spoken & {Spoken.WINDOW} = 0 THEN c.window_length ELSE s.window_length END,
  {merged_attributes},
  coalesce(s.opted_out, c.opted_out)

-- fragment: stored_of_homes
-- The clients at `homes`, looked up one by one: nowhere are all of them read.
stored_clients AS MATERIALIZED (
  SELECT h.phone AS home_phone, c.*
  FROM homes h JOIN clients c ON c.bucket = h.bucket AND c.id = h.client_id
)

-- name: create_latest
-- Of each phone the last row, beside what is stored: one look at the clients, so that every
-- row is either new, or differs, or is stored exactly so. In the order of phones, where
-- neighbours in the index come together. New ones are counted: their numbers come later. Of an
-- opt-out the last row that speaks of it decides, so that none gets lost behind one that does not.
CREATE TEMPORARY TABLE import_latest ON COMMIT DROP AS
WITH homes AS MATERIALIZED (
  SELECT p.phone, p.bucket, p.client_id
  FROM (SELECT DISTINCT phone FROM import_rows) r JOIN client_phones p ON p.phone = r.phone
), {stored_of_homes}, latest AS (
  SELECT r.position, r.bucket, r.phone, r.operator_code, r.tag, r.timezone, r.window_start, r.window_length,
    r.attributes, o.opted_out, r.spoken
  FROM (SELECT DISTINCT ON (phone) * FROM import_rows ORDER BY phone, position DESC) r
  LEFT JOIN (
    SELECT DISTINCT ON (phone) phone, opted_out FROM import_rows
    WHERE opted_out IS NOT NULL
    ORDER BY phone, position DESC
  ) o ON o.phone = r.phone
)
SELECT s.*, c.bucket AS home, c.id IS NULL AS is_new,
  c.id, count(*) FILTER (WHERE c.id IS NULL AND s.timezone <> '') OVER (ROWS UNBOUNDED PRECEDING) AS fresh_no,
  c.id IS NULL OR ({stored}) IS DISTINCT FROM ({merged}) AS differs,
  c.opted_out AS was_opted_out, false AS recalled, NULL::bigint[] AS received,
  $attribute_names::text[] IS NOT NULL AND c.id IS NOT NULL AND (
    SELECT count(*) FROM jsonb_object_keys({merged_attributes})
  ) > $most_attributes::bigint AS overfull
FROM latest s
LEFT JOIN stored_clients c ON c.home_phone = s.phone;

-- name: find_bad_rows
-- Rows that only what is stored shows to be bad: a new client without a time zone, and one who would
-- have too many attributes.
SELECT position, 'timezone' AS field FROM import_latest WHERE is_new AND timezone = ''
UNION ALL
SELECT position, 'attributes' FROM import_latest WHERE overfull AND differs
ORDER BY position;

-- name: count_latest
-- Without the rows that were left out, $left_out of them.
SELECT (SELECT count(*) FROM import_rows) - $left_out::bigint AS staged, count(*) AS phones,
  count(*) FILTER (WHERE is_new) AS fresh, count(*) FILTER (WHERE differs AND NOT is_new) AS changed
FROM import_latest;

-- name: leave_out
DELETE FROM import_latest WHERE position = ANY ($positions::bigint[]);

-- fragment: identity
-- The id of a row's client. The numbers of new ones are in ranges: those from the n-th new row of $starts on are
-- the row's count plus the n-th of $offsets.
coalesce(s.id, (s.fresh_no + ($offsets::bigint[])[width_bucket(s.fresh_no, $starts::bigint[])])
  * (SELECT count(*) FROM buckets) + s.bucket)

-- name: insert_fresh_phones
-- The usual case, in which nobody took one of the phones since create_latest; fails otherwise. In the
-- order of phones, so that two imports never deadlock.
INSERT INTO client_phones (phone, bucket, client_id)
SELECT phone, bucket, {identity} FROM import_latest s WHERE is_new ORDER BY phone;

-- name: claim_fresh_phones
-- The same without phones that are taken: half as fast.
INSERT INTO client_phones (phone, bucket, client_id)
SELECT phone, bucket, {identity} FROM import_latest s WHERE is_new ORDER BY phone
ON CONFLICT DO NOTHING;

-- name: adopt_taken_phones
-- Rows whose phone somebody else took are no longer new: they update the client of that phone.
WITH homes AS MATERIALIZED (
  SELECT p.phone, p.bucket, p.client_id
  FROM (SELECT phone, {identity} AS id FROM import_latest s WHERE is_new) r
  JOIN client_phones p ON p.phone = r.phone AND p.client_id <> r.id
), {stored_of_homes}
UPDATE import_latest s
SET is_new = false, home = c.bucket, id = c.id, was_opted_out = c.opted_out,
  differs = ({stored}) IS DISTINCT FROM ({merged})
FROM stored_clients c
WHERE s.is_new AND c.home_phone = s.phone;

-- fragment: digest
sha256((SELECT key FROM phone_keys) || convert_to(s.phone, 'UTF8'))

-- name: any_memories
SELECT EXISTS (SELECT 1 FROM phone_memories);

-- name: recall_phones
-- New clients take over what is remembered of their phones. `was_opted_out` tells that it was an opt-out.
WITH recalled AS (
  DELETE FROM phone_memories m USING import_latest s
  WHERE s.is_new AND m.digest = {digest}
  RETURNING s.phone, m.opted_out, m.received
)
UPDATE import_latest s
SET opted_out = coalesce(s.opted_out, r.opted_out), was_opted_out = r.opted_out, received = r.received,
  recalled = s.opted_out IS NULL
FROM recalled r
WHERE r.phone = s.phone;

-- name: insert_fresh_clients
INSERT INTO clients (bucket, id, phone, received, {columns}, opt_out_at, opt_out_source)
SELECT bucket, {identity}, phone, received, operator_code, tag, timezone, window_start, window_length, attributes,
  coalesce(opted_out, false), CASE WHEN opted_out AND NOT recalled THEN now() END,
  CASE WHEN opted_out AND NOT recalled THEN {OptOutOrigin.IMPORT} ELSE {OptOutOrigin.UNKNOWN} END
FROM import_latest s
WHERE is_new;

-- name: update_changed_clients
-- Returns fewer than there were when somebody else deleted one since create_latest looked. Merges with
-- what is stored now: what somebody else changed meanwhile and no row speaks of stays.
WITH written AS (
  UPDATE clients c
  SET ({columns}) = ({merged}), version = c.version + 1, updated_at = now(),
    opt_out_at = CASE WHEN s.opted_out AND NOT c.opted_out THEN s.at WHEN NOT s.opted_out THEN NULL
      ELSE c.opt_out_at END,
    opt_out_source = CASE WHEN s.opted_out AND NOT c.opted_out THEN {OptOutOrigin.IMPORT}
      WHEN NOT s.opted_out THEN {OptOutOrigin.UNKNOWN} ELSE c.opt_out_source END,
    opt_out_word = CASE WHEN s.opted_out IS NULL OR s.opted_out AND c.opted_out THEN c.opt_out_word ELSE '' END,
    opt_out_endpoint = CASE WHEN s.opted_out IS NULL OR s.opted_out AND c.opted_out THEN c.opt_out_endpoint ELSE '' END
  FROM (SELECT *, now() AS at FROM import_latest WHERE differs AND NOT is_new) s
  WHERE c.bucket = s.home AND c.id = s.id AND c.phone = s.phone
  RETURNING c.id
)
SELECT count(*) FROM written;

-- name: list_opted
-- Clients whose opt-out this import made, kept for a phone that was added again, or took back.
SELECT coalesce(home, bucket) AS bucket, {identity} AS id, opted_out, CASE WHEN recalled THEN 'phone_memory' ELSE 'import' END AS source
FROM import_latest s
WHERE opted_out IS NOT NULL AND (opted_out <> coalesce(was_opted_out, false) OR is_new AND opted_out)
ORDER BY 1, 2;

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
-- 5,000 consecutive numbers for each bucket are some 5,000 in each.
INSERT INTO import_touched (bucket, part, client_ids)
SELECT bucket, id / (5000 * (SELECT count(*) * count(*) FROM buckets)), array_agg(id)
FROM (SELECT coalesce(home, bucket) AS bucket, {identity} AS id FROM import_latest s WHERE differs) written
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
