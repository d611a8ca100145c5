-- What happens to the unsent messages of a client who is deleted.

-- name: list_pending_mailings
-- The live mailings in which the client waits for a message. The mailings lead, because
-- messages have no index by client.
SELECT g.id
FROM mailings g
CROSS JOIN LATERAL (
  SELECT FROM messages m WHERE m.bucket = $1 AND m.mailing_id = g.id AND m.client_id = $2 AND m.status = 1
) m
WHERE g.state IN (1, 2, 3)
ORDER BY g.id;

-- name: lock_open_batch
-- The batch of the client's message, unless it names a holder, even one whose lease ran out: its
-- message may have been delivered and the record of that be under way, which is accepted until
-- somebody else claims the batch. Waits for a claim under way and then looks again.
SELECT no, client_ids
FROM batches
WHERE bucket = $1 AND mailing_id = $2 AND client_ids @> ARRAY[$3::bigint] AND holder IS NULL
ORDER BY no
FOR UPDATE;

-- name: list_pending_of_batch
-- Which of a batch's messages are pending. The bounds beside the list keep the key's range
-- small on a mailing without statistics.
SELECT client_id
FROM messages
WHERE bucket = $1 AND mailing_id = $2 AND client_id BETWEEN $4 AND $5 AND client_id = ANY ($3::bigint[])
  AND status = 1;

-- name: take_journal_numbers
-- Takes $2 numbers and returns the last one.
UPDATE buckets SET journal_seq = journal_seq + $2 WHERE bucket = $1 RETURNING journal_seq;

-- name: cancel_messages_of_client
-- Reason 6: the client was deleted.
UPDATE messages SET status = 5, reason = 6, settled_at = now()
WHERE bucket = $1 AND mailing_id = ANY ($2::bigint[]) AND client_id = $3 AND status = 1;

-- name: count_cancelled
-- One message of each mailing moves from PENDING to CANCELLED; rows are written in the order
-- of their keys.
INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n)
SELECT $1, mailing_id, status, reason, n
FROM unnest($2::bigint[]) AS mailing_id
CROSS JOIN (VALUES (1::smallint, 0::smallint, -1), (5::smallint, 6::smallint, 1)) AS moved (status, reason, n)
ORDER BY mailing_id, status, reason
ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET n = k.n + excluded.n, last_at = now();

-- name: count_attempts_of_cancelled
-- The messages that were cancelled enter the histogram of the attempts that settled ones took.
INSERT INTO mailing_figures AS f (bucket, mailing_id, kind, key, n)
SELECT bucket, mailing_id, 1, attempts, 1
FROM messages
WHERE bucket = $1 AND mailing_id = ANY ($2::bigint[]) AND client_id = $3
ORDER BY mailing_id
ON CONFLICT (bucket, mailing_id, kind, key) DO UPDATE SET n = f.n + excluded.n;

-- name: journal_cancelled
INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)
SELECT $1, $2 - cardinality($3::bigint[]) + n, mailing_id, ARRAY[$4::bigint], ARRAY[5::smallint]
FROM unnest($3::bigint[]) WITH ORDINALITY AS settled (mailing_id, n);

-- name: delete_batch
DELETE FROM batches WHERE bucket = $1 AND mailing_id = $2 AND no = $3;
