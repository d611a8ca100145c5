-- Messages and attempts, read. What is left of a mailing that is being deleted is not shown.

-- name: get_message
SELECT *
FROM messages
WHERE bucket = $bucket AND mailing_id = $mailing_id AND client_id = $client_id
  AND EXISTS (SELECT FROM mailings WHERE id = $mailing_id);

-- fragment: next_of_mailing
-- The messages of a mailing behind a client: the first $limit of each bucket.
SELECT m.*
FROM buckets b
CROSS JOIN LATERAL (
  SELECT *
  FROM messages
  WHERE bucket = b.bucket AND mailing_id = $mailing_id AND client_id > $after
    AND ($statuses::smallint[] IS NULL OR status = ANY ($statuses))
  ORDER BY client_id
  LIMIT $limit
) m

-- name: list_messages_of_mailing
-- A page over all buckets in the order of clients, like list_clients.
{next_of_mailing}
ORDER BY m.client_id
LIMIT $limit;

-- name: export_messages
-- Like list_messages_of_mailing, but uses all rows that were read, as export_clients does, and with what a
-- text is made of. The LIMIT makes the client a look-up by the key.
WITH piece AS (
  {next_of_mailing}
), horizon AS (
  SELECT max(client_id) AS client_id FROM piece GROUP BY bucket HAVING count(*) = $limit
)
SELECT p.*, c.*
FROM piece p
LEFT JOIN LATERAL (
  SELECT phone, operator_code, tag, timezone, attributes FROM clients
  WHERE bucket = p.bucket AND id = p.client_id LIMIT 1
) c ON true
WHERE p.client_id <= coalesce((SELECT min(client_id) FROM horizon), 9223372036854775807)
ORDER BY p.client_id;

-- name: list_messages_of_client
-- One look-up by the key per mailing: messages have no index by client.
SELECT m.*
FROM mailings g
CROSS JOIN LATERAL (
  SELECT *
  FROM messages
  WHERE bucket = $bucket AND mailing_id = g.id AND client_id = $client_id
    AND ($statuses::smallint[] IS NULL OR status = ANY ($statuses))
  OFFSET 0
) m
WHERE g.id > $after AND ($mailing_id::bigint = 0 OR g.id = $mailing_id)
ORDER BY g.id
LIMIT $limit;

-- name: list_phones
-- The phones of clients. The LIMIT makes each a look-up by the key.
SELECT i.id, c.phone
FROM unnest($buckets::int[], $ids::bigint[]) AS i (bucket, id)
CROSS JOIN LATERAL (SELECT phone FROM clients WHERE bucket = i.bucket AND id = i.id LIMIT 1) c;

-- name: list_attempts
SELECT * FROM attempts WHERE bucket = $bucket AND mailing_id = $mailing_id AND client_id = $client_id ORDER BY number;
