-- A mailing is gone with its row; what belongs to it is removed afterwards, bucket by bucket.
-- The expansion is the last of a bucket to go: it says where something is left.

-- name: close_expansions
-- Waits for steps under way; those that come later find nothing to do.
UPDATE expansions SET finished = true WHERE mailing_id = $1;

-- name: has_batches
SELECT EXISTS (SELECT FROM buckets b JOIN batches t ON t.bucket = b.bucket AND t.mailing_id = $1);

-- name: delete_batches
-- Behind this no settle finds its batch any more.
DELETE FROM batches t USING buckets b WHERE t.bucket = b.bucket AND t.mailing_id = $1;

-- name: delete_mailing
DELETE FROM mailings WHERE id = $1;

-- name: delete_rate_slots
DELETE FROM rate_slots WHERE key = 'mailing/' || $1::bigint;

-- name: list_remains
-- The buckets in which something is left of a mailing that is gone.
SELECT e.bucket
FROM buckets b
JOIN expansions e ON e.bucket = b.bucket AND e.mailing_id = $1
WHERE NOT EXISTS (SELECT FROM mailings WHERE id = $1)
ORDER BY e.bucket;

-- name: list_leftovers
-- The mailings that are gone and have left something behind. OFFSET 0 keeps the look at each bucket
-- by its key.
SELECT DISTINCT e.mailing_id
FROM buckets b
CROSS JOIN LATERAL (SELECT mailing_id FROM expansions WHERE bucket = b.bucket OFFSET 0) e
WHERE NOT EXISTS (SELECT FROM mailings g WHERE g.id = e.mailing_id);

-- name: delete_messages
-- The next $4 messages of a bucket behind the client $3, with their attempts; `last` is null
-- when there are no more.
WITH part AS (
  SELECT max(client_id) AS last FROM (
    SELECT client_id FROM messages
    WHERE bucket = $1 AND mailing_id = $2 AND client_id > $3
    ORDER BY client_id
    LIMIT $4
  ) next
), tries AS (
  DELETE FROM attempts
  WHERE bucket = $1 AND mailing_id = $2 AND client_id > $3 AND client_id <= (SELECT last FROM part)
), gone AS (
  DELETE FROM messages
  WHERE bucket = $1 AND mailing_id = $2 AND client_id > $3 AND client_id <= (SELECT last FROM part)
  RETURNING client_id
)
SELECT (SELECT last FROM part) AS last, (SELECT count(*) FROM gone) AS deleted;

-- name: delete_counts
DELETE FROM mailing_counts WHERE bucket = $1 AND mailing_id = $2;

-- name: delete_figures
DELETE FROM mailing_figures WHERE bucket = $1 AND mailing_id = $2;

-- name: delete_expansion
DELETE FROM expansions WHERE bucket = $1 AND mailing_id = $2;
