-- Messages and attempts, read. What is left of a mailing that is being deleted is not shown.

-- name: get_message
SELECT *
FROM messages
WHERE bucket = $bucket AND mailing_id = $mailing_id AND client_id = $client_id
  AND EXISTS (SELECT FROM mailings WHERE id = $mailing_id);

-- name: list_messages_of_mailing
-- A page over all buckets in the order of clients, like list_clients.
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
ORDER BY m.client_id
LIMIT $limit;

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

-- name: list_attempts
SELECT * FROM attempts WHERE bucket = $bucket AND mailing_id = $mailing_id AND client_id = $client_id ORDER BY number;
