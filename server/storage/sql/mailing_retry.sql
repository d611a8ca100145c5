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

-- name: requeue
-- Puts back the next $most messages of a bucket behind the client $after that have one of $statuses and were settled at
-- $settled_until or before.
SELECT requeued, last_id FROM requeue_v1(
  p_bucket => $bucket::int, p_mailing_id => $mailing_id, p_statuses => $statuses, p_settled_until => $settled_until,
  p_after => $after, p_most => $most, p_batch_size => $batch_size
);

-- name: requeue_blocks
-- The same for messages that ended untried: the next $most blocks of them.
SELECT requeued FROM requeue_blocks_v1(
  p_bucket => $bucket::int, p_mailing_id => $mailing_id, p_statuses => $statuses, p_settled_until => $settled_until,
  p_most => $most
);

-- name: reopen_mailing
UPDATE mailings SET state = {MailingState.RUNNING}, recheck_at = 'infinity', version = version + 1, updated_at = now()
WHERE id = $mailing_id AND state = {MailingState.COMPLETED};
