-- Removing messages, of mailings that are deleted and of those that keep only counters and report. The row in `removals`
-- is locked while a part is removed, so that one replica works at a time, and goes last.

-- name: begin_removal
-- $gone of the messages are removed already.
INSERT INTO removals (mailing_id, remaining, keeps_report)
SELECT $mailing_id, greatest(0, coalesce(sum(n), 0) - $gone::bigint), $keeps_report
FROM buckets b JOIN mailing_counts k ON k.bucket = b.bucket AND k.mailing_id = $mailing_id
ON CONFLICT (mailing_id) DO UPDATE SET keeps_report = excluded.keeps_report;

-- name: adopt_leftovers
-- What the release before this one left of mailings that it was deleting. OFFSET 0 keeps the planner reading bucket by
-- bucket, by the key.
WITH leftovers AS MATERIALIZED (
  SELECT DISTINCT e.mailing_id
  FROM buckets b
  CROSS JOIN LATERAL (SELECT mailing_id FROM expansions WHERE bucket = b.bucket OFFSET 0) e
  WHERE NOT EXISTS (SELECT 1 FROM mailings g WHERE g.id = e.mailing_id)
), counted AS MATERIALIZED (
  SELECT k.mailing_id, sum(k.n) AS n
  FROM buckets b JOIN mailing_counts k ON k.bucket = b.bucket AND k.mailing_id IN (SELECT mailing_id FROM leftovers)
  GROUP BY k.mailing_id
)
INSERT INTO removals (mailing_id, remaining, keeps_report)
SELECT l.mailing_id, coalesce(c.n, 0), false FROM leftovers l LEFT JOIN counted c USING (mailing_id)
ON CONFLICT DO NOTHING;

-- name: list_removals
-- What is to be removed, the oldest first, with the buckets.
SELECT r.mailing_id, r.remaining, r.keeps_report, ARRAY(SELECT bucket FROM buckets ORDER BY bucket) AS buckets
FROM removals r
WHERE $mailing_id::bigint = 0 OR r.mailing_id = $mailing_id
ORDER BY r.began_at, r.mailing_id;

-- name: lock_removal
-- No row while another replica removes a part, or when all is removed.
SELECT remaining FROM removals WHERE mailing_id = $mailing_id FOR UPDATE SKIP LOCKED;

-- name: empty_partition
SELECT empty_ledger_partition_v1($mailing_id);

-- name: keep_blocks_remaining
-- After its partition was emptied only those messages are left that ended alike, in blocks.
UPDATE removals SET remaining = least(remaining, (
  SELECT coalesce(sum(cardinality(k.client_ids)), 0)
  FROM buckets b JOIN blocks k ON k.bucket = b.bucket AND k.mailing_id = $mailing_id
))
WHERE mailing_id = $mailing_id
RETURNING remaining;

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

-- name: note_removed
UPDATE removals SET remaining = greatest(0, remaining - $n) WHERE mailing_id = $mailing_id RETURNING remaining;

-- name: delete_blocks
-- Removes messages that ended alike and returns how many.
WITH gone AS (
  DELETE FROM blocks WHERE bucket = $bucket AND mailing_id = $mailing_id RETURNING cardinality(client_ids) AS messages
)
SELECT coalesce(sum(messages), 0)::bigint FROM gone;

-- name: delete_receipts
-- Those of messages that were never written.
DELETE FROM receipts WHERE bucket = $bucket AND mailing_id = $mailing_id;

-- name: delete_report
-- The counters and figures of a mailing that was deleted.
WITH counts AS (
  DELETE FROM mailing_counts WHERE bucket = $bucket AND mailing_id = $mailing_id
), receipts AS (
  DELETE FROM receipt_counts WHERE bucket = $bucket AND mailing_id = $mailing_id
), figures AS (
  DELETE FROM mailing_figures WHERE bucket = $bucket AND mailing_id = $mailing_id
), samples AS (
  DELETE FROM mailing_samples WHERE bucket = $bucket AND mailing_id = $mailing_id
)
DELETE FROM expansions WHERE bucket = $bucket AND mailing_id = $mailing_id;

-- name: end_removal
-- Not if the mailing was deleted meanwhile: its report is to go as well, in another pass.
DELETE FROM removals WHERE mailing_id = $mailing_id AND keeps_report = $keeps_report;
