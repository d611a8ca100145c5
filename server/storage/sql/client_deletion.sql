-- What happens to the unsent messages of a client who is deleted.

-- name: list_pending_mailings
-- The live mailings in which the client has a pending message that was surely not sent. Looks up one
-- message per mailing, because messages have no index by client.
SELECT g.id
FROM mailings g
CROSS JOIN LATERAL (
  SELECT 1 FROM messages m
  WHERE m.bucket = $bucket AND m.mailing_id = g.id AND m.client_id = $client_id AND m.status = {Status.PENDING}
    AND m.maybe_sent IS NOT TRUE
  UNION ALL
  SELECT 1 FROM batches b
  WHERE b.bucket = $bucket AND b.mailing_id = g.id AND b.fresh
    AND b.lowest <= $client_id::bigint AND b.highest >= $client_id AND $client_id = ANY (b.client_ids)
) m
WHERE g.state IN ({MailingState.SCHEDULED}, {MailingState.RUNNING}, {MailingState.PAUSED})
ORDER BY g.id;

-- name: lock_open_batch
-- The batch of the client's message, unless it names a holder, even one whose lease has expired, or an
-- earlier one may have sent of it: the message may have been delivered and its outcome be on the way,
-- which is accepted until another replica claims the batch. Waits for a claim in progress and then checks again.
SELECT no, client_ids, fresh, created_at, due_at
FROM batches
WHERE bucket = $bucket AND mailing_id = $mailing_id AND client_ids @> ARRAY[$client_id::bigint] AND holder IS NULL
  AND NOT doubtful
ORDER BY no
FOR UPDATE;

-- name: take_from_fresh_batch
-- The others stay in the batch.
UPDATE batches SET client_ids = array_remove(client_ids, $client_id::bigint)
WHERE bucket = $bucket AND mailing_id = $mailing_id AND no = $batch_no;

-- name: list_pending_of_batch
-- The pending messages of a batch. $first_id and $last_id keep the index range small for a mailing
-- without statistics.
SELECT client_id
FROM messages
WHERE bucket = $bucket AND mailing_id = $mailing_id AND client_id BETWEEN $first_id AND $last_id
  AND client_id = ANY ($client_ids::bigint[]) AND status = {Status.PENDING};

-- name: take_change_numbers
-- Takes $count numbers of the bucket's change feed and returns the last one.
UPDATE buckets SET journal_seq = journal_seq + $count WHERE bucket = $bucket RETURNING journal_seq;

-- name: write_message
-- The row of a message that stood in a fresh batch; it is cancelled next.
INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at)
VALUES ($bucket, $mailing_id, $client_id, $created_at, $due_at);

-- name: cancel_messages_of_client
UPDATE messages SET status = {Status.CANCELLED}, reason = {Reason.CLIENT_DELETED}, settled_at = now()
WHERE bucket = $bucket AND mailing_id = ANY ($mailing_ids::bigint[]) AND client_id = $client_id
  AND status = {Status.PENDING};

-- name: count_cancelled
-- Moves one message of each mailing from PENDING to CANCELLED. Rows are written in the order of
-- their keys.
INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n)
SELECT $bucket, mailing_id, status, reason, n
FROM unnest($mailing_ids::bigint[]) AS mailing_id
CROSS JOIN (VALUES
  ({Status.PENDING}::smallint, {Reason.NONE}::smallint, -1),
  ({Status.CANCELLED}::smallint, {Reason.CLIENT_DELETED}::smallint, 1)
) AS moved (status, reason, n)
ORDER BY mailing_id, status, reason
ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET n = k.n + excluded.n, last_at = excluded.last_at;

-- name: count_attempts_of_cancelled
-- Adds the cancelled messages to the histogram of attempts.
INSERT INTO mailing_figures AS f (bucket, mailing_id, kind, key, n)
SELECT bucket, mailing_id, {Figure.ATTEMPTS}, attempts, 1
FROM messages
WHERE bucket = $bucket AND mailing_id = ANY ($mailing_ids::bigint[]) AND client_id = $client_id
ORDER BY mailing_id
ON CONFLICT (bucket, mailing_id, kind, key) DO UPDATE SET n = f.n + excluded.n;

-- name: record_cancelled_changes
INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)
SELECT $bucket, $last - cardinality($mailing_ids::bigint[]) + n, mailing_id, ARRAY[$client_id::bigint],
  ARRAY[{Status.CANCELLED}::smallint]
FROM unnest($mailing_ids::bigint[]) WITH ORDINALITY AS settled (mailing_id, n);

-- name: delete_batch
DELETE FROM batches WHERE bucket = $bucket AND mailing_id = $mailing_id AND no = $batch_no;
