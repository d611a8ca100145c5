-- Messages and attempts, read. A message has a row once it was tried or has ended by itself; before that it stands in
-- a fresh batch, and those that ended alike in a block. One statement reads all three, of one snapshot. What is left of
-- a mailing that is being deleted, or whose messages were kept long enough, is not shown.

-- fragment: written
m.status, m.reason, m.attempts, m.created_at, m.due_at, m.settled_at, m.endpoint_status, m.endpoint_code, m.duration_ms

-- fragment: unwritten
-- The same columns of a message without a row.
u.status, u.reason, 0::smallint AS attempts, u.created_at, u.due_at, u.settled_at, NULL::smallint AS endpoint_status,
    NULL::bigint AS endpoint_code, NULL::int AS duration_ms

-- fragment: names_client
-- Whether a batch or block names the client.
u.lowest <= $client_id AND u.highest >= $client_id AND $client_id = ANY (u.client_ids)

-- fragment: has_receipt
-- Whether a message with a row has one of $receipts; one without a row is not sent yet.
EXISTS (
      SELECT 1 FROM receipts r
      WHERE r.bucket = $bucket AND r.mailing_id = m.mailing_id AND r.client_id = $client_id AND r.receipt = ANY ($receipts)
    )

-- name: get_message
SELECT $mailing_id::bigint AS mailing_id, $client_id::bigint AS client_id, x.*
FROM (
  SELECT {written}
  FROM messages m WHERE m.bucket = $bucket AND m.mailing_id = $mailing_id AND m.client_id = $client_id
  UNION ALL
  SELECT {unwritten}
  FROM unwritten u
  WHERE u.bucket = $bucket AND u.mailing_id = $mailing_id AND {names_client}
) x
WHERE EXISTS (SELECT 1 FROM mailings WHERE id = $mailing_id AND messages_removed_at IS NULL);

-- fragment: next_of_mailing
-- The messages of a mailing behind a client: the first $limit of each of $buckets.
SELECT b.bucket, $mailing_id::bigint AS mailing_id, m.*
FROM unnest($buckets::int[]) AS b (bucket)
CROSS JOIN LATERAL list_messages_v1(
  p_bucket => b.bucket, p_mailing_id => $mailing_id, p_after => $after, p_limit => $limit, p_statuses => $statuses,
  p_receipts => $receipts, p_with_clients => $with_clients
) m

-- name: list_messages_of_mailing
-- A page over all buckets in the order of clients, like list_clients.
{next_of_mailing}
ORDER BY m.client_id
LIMIT $limit;

-- name: export_messages
-- Like list_messages_of_mailing, but uses all rows that were read, as export_clients does.
WITH piece AS (
  {next_of_mailing}
), horizon AS (
  SELECT max(client_id) AS client_id FROM piece GROUP BY bucket HAVING count(*) = $limit
)
SELECT p.*
FROM piece p
WHERE p.client_id <= coalesce((SELECT min(client_id) FROM horizon), 9223372036854775807)
ORDER BY p.client_id;

-- name: list_messages_of_client
-- One look-up by the key per mailing: messages have no index by client.
SELECT g.id AS mailing_id, $client_id::bigint AS client_id, x.*
FROM mailings g
CROSS JOIN LATERAL (
  SELECT {written}
  FROM messages m
  WHERE m.bucket = $bucket AND m.mailing_id = g.id AND m.client_id = $client_id
    AND ($statuses::smallint[] IS NULL OR m.status = ANY ($statuses))
    AND ($receipts::smallint[] IS NULL OR {has_receipt})
  UNION ALL
  SELECT {unwritten}
  FROM unwritten u
  WHERE u.bucket = $bucket AND u.mailing_id = g.id AND {names_client} AND $receipts IS NULL
    AND ($statuses IS NULL OR u.status = ANY ($statuses))
  OFFSET 0
) x
WHERE g.id > $after AND g.messages_removed_at IS NULL AND ($mailing_id::bigint = 0 OR g.id = $mailing_id)
ORDER BY g.id
LIMIT $limit;

-- name: list_phones
-- The phones of clients.
SELECT c.id, c.phone
FROM unnest($buckets::int[], $ids::bigint[]) AS i (bucket, id)
JOIN clients c USING (bucket, id);

-- name: list_attempts
SELECT * FROM attempts WHERE bucket = $bucket AND mailing_id = $mailing_id AND client_id = $client_id ORDER BY number;
