-- The ledger, read. What is left of a mailing that is being deleted is no part of it.

-- name: get_message
SELECT *
FROM messages
WHERE bucket = $1 AND mailing_id = $2 AND client_id = $3 AND EXISTS (SELECT FROM mailings WHERE id = $2);

-- name: list_messages_of_mailing
-- A page over all buckets in the order of clients, as list_clients does it.
SELECT m.*
FROM buckets b
CROSS JOIN LATERAL (
  SELECT *
  FROM messages
  WHERE bucket = b.bucket AND mailing_id = $1 AND client_id > $2
    AND ($4::smallint[] IS NULL OR status = ANY ($4))
  ORDER BY client_id
  LIMIT $3
) m
ORDER BY m.client_id
LIMIT $3;

-- name: list_messages_of_client
-- One look at the key per mailing: messages have no index by client.
SELECT m.*
FROM mailings g
CROSS JOIN LATERAL (
  SELECT *
  FROM messages
  WHERE bucket = $1 AND mailing_id = g.id AND client_id = $2 AND ($5::smallint[] IS NULL OR status = ANY ($5))
  OFFSET 0
) m
WHERE g.id > $3 AND ($6::bigint = 0 OR g.id = $6)
ORDER BY g.id
LIMIT $4;

-- name: list_attempts
SELECT * FROM attempts WHERE bucket = $1 AND mailing_id = $2 AND client_id = $3 ORDER BY number;
