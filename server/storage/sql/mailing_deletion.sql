-- A mailing is gone with its row; what belongs to it is removed afterwards, bucket by bucket. The
-- expansion of a bucket goes last: it tells that something is left there.

-- name: close_expansions
-- Waits for steps in progress; later ones find nothing to do.
UPDATE expansions SET finished = true WHERE mailing_id = $mailing_id;

-- name: has_batches
SELECT EXISTS (SELECT FROM buckets b JOIN batches t ON t.bucket = b.bucket AND t.mailing_id = $mailing_id);

-- name: delete_batches
-- After this no settle finds its batch. Returns how many messages stood in batches only.
WITH gone AS (
  DELETE FROM batches t USING buckets b WHERE t.bucket = b.bucket AND t.mailing_id = $mailing_id
  RETURNING CASE WHEN t.fresh THEN cardinality(t.client_ids) ELSE 0 END AS unwritten
)
SELECT coalesce(sum(unwritten), 0)::bigint FROM gone;

-- name: delete_mailing
DELETE FROM mailings WHERE id = $mailing_id;

-- name: delete_rate_slots
DELETE FROM rate_slots WHERE key = 'mailing/' || $mailing_id::bigint;

-- name: list_remains
-- The buckets in which something is left of a deleted mailing.
SELECT e.bucket
FROM buckets b
JOIN expansions e ON e.bucket = b.bucket AND e.mailing_id = $mailing_id
WHERE NOT EXISTS (SELECT FROM mailings WHERE id = $mailing_id)
ORDER BY e.bucket;

-- name: list_leftovers
-- The deleted mailings of which something is left. OFFSET 0 keeps the planner reading bucket by
-- bucket, by the key.
SELECT DISTINCT e.mailing_id
FROM buckets b
CROSS JOIN LATERAL (SELECT mailing_id FROM expansions WHERE bucket = b.bucket OFFSET 0) e
WHERE NOT EXISTS (SELECT FROM mailings g WHERE g.id = e.mailing_id);

-- name: delete_messages
-- The next $most messages of a bucket behind the client $after, with their attempts and receipts; `last` is null
-- when there are no more.
WITH part AS (
  SELECT max(client_id) AS last FROM (
    SELECT client_id FROM messages
    WHERE bucket = $bucket AND mailing_id = $mailing_id AND client_id > $after
    ORDER BY client_id
    LIMIT $most
  ) next
), tries AS (
  DELETE FROM attempts
  WHERE bucket = $bucket AND mailing_id = $mailing_id AND client_id > $after AND client_id <= (SELECT last FROM part)
), reports AS (
  DELETE FROM receipts
  WHERE bucket = $bucket AND mailing_id = $mailing_id AND client_id > $after AND client_id <= (SELECT last FROM part)
), gone AS (
  DELETE FROM messages
  WHERE bucket = $bucket AND mailing_id = $mailing_id AND client_id > $after AND client_id <= (SELECT last FROM part)
  RETURNING client_id
)
SELECT (SELECT last FROM part) AS last, (SELECT count(*) FROM gone) AS deleted;

-- name: delete_blocks
-- Removes messages that ended alike and returns how many.
WITH gone AS (
  DELETE FROM blocks WHERE bucket = $bucket AND mailing_id = $mailing_id RETURNING cardinality(client_ids) AS messages
)
SELECT coalesce(sum(messages), 0)::bigint FROM gone;

-- name: delete_counts
DELETE FROM mailing_counts WHERE bucket = $bucket AND mailing_id = $mailing_id;

-- name: delete_receipts
-- With their counts; receipts of messages that were never written are among them.
WITH counts AS (DELETE FROM receipt_counts WHERE bucket = $bucket AND mailing_id = $mailing_id)
DELETE FROM receipts WHERE bucket = $bucket AND mailing_id = $mailing_id;

-- name: delete_figures
DELETE FROM mailing_figures WHERE bucket = $bucket AND mailing_id = $mailing_id;

-- name: delete_expansion
DELETE FROM expansions WHERE bucket = $bucket AND mailing_id = $mailing_id;
