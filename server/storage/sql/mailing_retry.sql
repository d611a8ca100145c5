-- Puts settled messages back to PENDING, a bounded part of one bucket at a time.

-- name: lock_retried
-- Keeps others from pausing, cancelling, completing or deleting the mailing meanwhile.
SELECT state, semantics, audience_mode, max_rate, coalesce(ends_at <= now(), false) AS ended, now() AS read_at,
  messages_removed_at IS NOT NULL AS removed
FROM mailings
WHERE id = $mailing_id
FOR UPDATE;

-- name: list_buckets_to_retry
SELECT DISTINCT k.bucket
FROM buckets b
JOIN mailing_counts k ON k.bucket = b.bucket AND k.mailing_id = $mailing_id
  AND k.status = ANY ($statuses::smallint[])
WHERE k.n > 0
ORDER BY k.bucket;

-- name: find_to_retry
-- The next $most messages of a bucket behind the client $after that have one of $statuses and were
-- settled at $settled_until or before, ascending. The mailing is locked, so that nobody else changes
-- them before the end of the transaction.
SELECT coalesce(array_agg(client_id ORDER BY client_id), '{}') AS client_ids
FROM (
  SELECT client_id
  FROM messages
  WHERE bucket = $bucket AND mailing_id = $mailing_id AND client_id > $after
    AND status = ANY ($statuses::smallint[]) AND settled_at <= $settled_until
  ORDER BY client_id
  LIMIT $most
) next;

-- name: delete_batches_of
-- Comes before `requeue`. A batch in progress still names the messages that it has settled. No message
-- may be in two batches: if the holder died, both would send it.
DELETE FROM batches
WHERE bucket = $bucket AND mailing_id = $mailing_id AND NOT fresh AND client_ids <@ $client_ids::bigint[];

-- name: take_from_batches
-- The same for batches that name other messages, too.
UPDATE batches b
SET client_ids = ARRAY(SELECT i FROM unnest(b.client_ids) AS i WHERE i <> ALL ($client_ids::bigint[]) ORDER BY i)
WHERE bucket = $bucket AND mailing_id = $mailing_id AND NOT fresh AND client_ids && $client_ids::bigint[];

-- name: requeue
-- Puts back these messages in new batches of $batch_size. Attempts made so far no longer count against
-- the limit. Batches were locked before; then come the bucket's row, its messages and its counters: all
-- statements lock in this order. `requeued` finds the same ones as `found`, without a join whose plan
-- would depend on statistics.
WITH found AS MATERIALIZED (
  SELECT client_id, status, reason, attempts
  FROM messages
  WHERE bucket = $bucket AND mailing_id = $mailing_id AND client_id BETWEEN $first_id AND $last_id
    AND client_id = ANY ($client_ids::bigint[]) AND status = ANY ($statuses::smallint[])
), opened AS (
  INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, opened_at)
  SELECT $bucket, $mailing_id, nextval('batch_no'), client_ids, now(), now()
  FROM (
    SELECT array_agg(client_id ORDER BY client_id) AS client_ids
    FROM (SELECT client_id, (row_number() OVER (ORDER BY client_id) - 1) / $batch_size AS part FROM found) numbered
    GROUP BY part
  ) parts
), tick AS (
  UPDATE buckets SET journal_seq = journal_seq + 1
  WHERE bucket = $bucket AND EXISTS (SELECT 1 FROM found)
  RETURNING journal_seq
), requeued AS (
  -- The columns of the last attempt stay.
  UPDATE messages m
  SET status = {Status.PENDING}, reason = CASE WHEN attempts > 0 THEN {Reason.RETRYING} ELSE {Reason.NONE} END,
    forgiven = nullif(attempts, 0), maybe_sent = CASE WHEN m.status = {Status.UNKNOWN} THEN true ELSE m.maybe_sent END,
    settled_at = NULL, due_at = now()
  FROM tick
  WHERE m.bucket = $bucket AND m.mailing_id = $mailing_id
    AND m.client_id BETWEEN $first_id AND (SELECT max(client_id) FROM found)
    AND m.client_id = ANY ($client_ids::bigint[]) AND m.status = ANY ($statuses::smallint[])
  RETURNING m.client_id
), counted AS (
  INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n)
  SELECT $bucket, $mailing_id, status, reason, n
  FROM (
    SELECT {Status.PENDING} AS status, {Reason.NONE} AS reason, count(*) AS n FROM found
    UNION ALL
    SELECT status, reason, -count(*) FROM found GROUP BY status, reason
  ) moved
  WHERE EXISTS (SELECT 1 FROM tick)
  ORDER BY status, reason
  ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET n = k.n + excluded.n
), figured AS (
  INSERT INTO mailing_figures AS f (bucket, mailing_id, kind, key, n)
  SELECT $bucket, $mailing_id, {Figure.ATTEMPTS}, attempts, -count(*)
  FROM found
  WHERE EXISTS (SELECT 1 FROM tick)
  GROUP BY attempts
  ORDER BY attempts
  ON CONFLICT (bucket, mailing_id, kind, key) DO UPDATE SET n = f.n + excluded.n
), wrote AS (
  INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)
  SELECT $bucket, (SELECT journal_seq FROM tick), $mailing_id, array_agg(client_id ORDER BY client_id),
    ARRAY[{Status.PENDING}]
  FROM found
  HAVING count(*) > 0
)
SELECT (SELECT count(*) FROM found) AS found, (SELECT count(*) FROM requeued) AS requeued;

-- name: requeue_blocks
-- The same for messages that ended untried, in blocks: the next $most of these become fresh batches again. Returns how
-- many messages that were.
WITH gone AS (
  DELETE FROM blocks
  WHERE bucket = $bucket AND mailing_id = $mailing_id AND no = ANY (ARRAY(
    SELECT no FROM blocks
    WHERE bucket = $bucket AND mailing_id = $mailing_id AND status = ANY ($statuses::smallint[])
      AND settled_at <= $settled_until
    ORDER BY no LIMIT $most
  ))
  RETURNING no, client_ids, created_at, status, reason
), opened AS (
  INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, opened_at, created_at, fresh)
  SELECT $bucket, $mailing_id, no, client_ids, now(), now(), created_at, true FROM gone
), tick AS (
  UPDATE buckets SET journal_seq = journal_seq + 1
  WHERE bucket = $bucket AND EXISTS (SELECT 1 FROM gone)
  RETURNING journal_seq
), counted AS (
  INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n)
  SELECT $bucket, $mailing_id, status, reason, n
  FROM (
    SELECT {Status.PENDING} AS status, {Reason.NONE} AS reason, sum(cardinality(client_ids)) AS n FROM gone
    UNION ALL
    SELECT status, reason, -sum(cardinality(client_ids)) FROM gone GROUP BY status, reason
  ) moved
  WHERE EXISTS (SELECT 1 FROM tick)
  ORDER BY status, reason
  ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET n = k.n + excluded.n
), figured AS (
  INSERT INTO mailing_figures AS f (bucket, mailing_id, kind, key, n)
  SELECT $bucket, $mailing_id, {Figure.ATTEMPTS}, 0, -sum(cardinality(client_ids)) FROM gone
  WHERE EXISTS (SELECT 1 FROM tick)
  HAVING count(*) > 0
  ON CONFLICT (bucket, mailing_id, kind, key) DO UPDATE SET n = f.n + excluded.n
), wrote AS (
  INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)
  SELECT $bucket, (SELECT journal_seq FROM tick), $mailing_id, array_agg(i.id ORDER BY i.id), ARRAY[{Status.PENDING}]
  FROM gone CROSS JOIN LATERAL unnest(client_ids) AS i(id)
  HAVING count(*) > 0
)
SELECT coalesce(sum(cardinality(client_ids)), 0)::bigint FROM gone;

-- name: reopen_mailing
UPDATE mailings SET state = {MailingState.RUNNING}, recheck_at = 'infinity', version = version + 1, updated_at = now()
WHERE id = $mailing_id AND state = {MailingState.COMPLETED};
