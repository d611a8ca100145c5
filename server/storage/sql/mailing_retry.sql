-- Settled messages go back to PENDING, a bounded part of one bucket at a time.

-- name: lock_retried
-- Holds off whoever would pause, cancel, complete or delete the mailing meanwhile.
SELECT state, semantics, audience_mode, max_rate, coalesce(ends_at <= now(), false) AS ended, now() AS read_at
FROM mailings
WHERE id = $1
FOR UPDATE;

-- name: list_buckets_to_retry
SELECT DISTINCT k.bucket
FROM buckets b
JOIN mailing_counts k ON k.bucket = b.bucket AND k.mailing_id = $1 AND k.status = ANY ($2::smallint[])
WHERE k.n > 0
ORDER BY k.bucket;

-- name: requeue
-- Puts back the next $6 messages of a bucket behind the client $3 that have one of the statuses
-- in $4 and were settled at $5 or before, in batches of $7. Attempts made so far are forgiven.
-- The mailing is locked, so that nobody else moves these: `requeued` finds the messages that
-- `found` did, without a join whose plan would depend on statistics.
WITH found AS MATERIALIZED (
  SELECT client_id, status, reason, attempts
  FROM messages
  WHERE bucket = $1 AND mailing_id = $2 AND client_id > $3
    AND status = ANY ($4::smallint[]) AND settled_at <= $5
  ORDER BY client_id
  LIMIT $6
), opened AS (
  INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at)
  SELECT $1, $2, nextval('batch_no'), client_ids, now()
  FROM (
    SELECT array_agg(client_id ORDER BY client_id) AS client_ids
    FROM (SELECT client_id, (row_number() OVER (ORDER BY client_id) - 1) / $7 AS part FROM found) numbered
    GROUP BY part
  ) parts
), emptied AS (
  -- A batch under way still names the messages that it has settled. They must not stand in two:
  -- were its holder to die, both would send them.
  DELETE FROM batches
  WHERE bucket = $1 AND mailing_id = $2 AND client_ids <@ ARRAY(SELECT client_id FROM found)
  RETURNING no
), shortened AS (
  UPDATE batches b
  SET client_ids = ARRAY(SELECT i FROM unnest(b.client_ids) AS i WHERE i NOT IN (SELECT client_id FROM found) ORDER BY i)
  WHERE bucket = $1 AND mailing_id = $2 AND client_ids && ARRAY(SELECT client_id FROM found)
    AND NOT client_ids <@ ARRAY(SELECT client_id FROM found)
  RETURNING no
), tick AS (
  -- The batches are locked before the bucket's row, and that before its messages and counters: one
  -- order for everybody.
  UPDATE buckets SET journal_seq = journal_seq + 1
  WHERE bucket = $1 AND EXISTS (SELECT FROM found)
    AND (SELECT count(*) FROM emptied) + (SELECT count(*) FROM shortened) >= 0
  RETURNING journal_seq
), requeued AS (
  -- Reason 3, RETRYING, for those that were tried; the facts of their last attempt stay.
  UPDATE messages m
  SET status = 1, reason = CASE WHEN attempts > 0 THEN 3 ELSE 0 END, forgiven = nullif(attempts, 0),
    settled_at = NULL, due_at = now()
  FROM tick
  WHERE m.bucket = $1 AND m.mailing_id = $2
    AND m.client_id > $3 AND m.client_id <= (SELECT max(client_id) FROM found)
    AND m.status = ANY ($4::smallint[]) AND m.settled_at <= $5
  RETURNING m.client_id
), counted AS (
  INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n)
  SELECT $1, $2, status, reason, n
  FROM (
    SELECT 1 AS status, 0 AS reason, count(*) AS n FROM found
    UNION ALL
    SELECT status, reason, -count(*) FROM found GROUP BY status, reason
  ) moved
  WHERE EXISTS (SELECT FROM tick)
  ORDER BY status, reason
  ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET n = k.n + excluded.n
), figured AS (
  -- Kind 1: how many attempts settled messages took.
  INSERT INTO mailing_figures AS f (bucket, mailing_id, kind, key, n)
  SELECT $1, $2, 1, attempts, -count(*)
  FROM found
  WHERE EXISTS (SELECT FROM tick)
  GROUP BY attempts
  ORDER BY attempts
  ON CONFLICT (bucket, mailing_id, kind, key) DO UPDATE SET n = f.n + excluded.n
), wrote AS (
  INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)
  SELECT $1, (SELECT journal_seq FROM tick), $2, array_agg(client_id ORDER BY client_id), ARRAY[1]
  FROM found
  HAVING count(*) > 0
)
SELECT (SELECT count(*) FROM found) AS found, (SELECT count(*) FROM requeued) AS requeued,
  (SELECT max(client_id) FROM found) AS last;

-- name: reopen_mailing
UPDATE mailings SET state = 2, recheck_at = 'infinity', version = version + 1, updated_at = now()
WHERE id = $1 AND state = 4;
