-- What belongs to the messages of one client. Messages themselves are read by messages.sql.

-- name: list_client_events
-- The newest events about a client, apart from those of their messages and from who looked at them.
SELECT at, level, event, text, mailing_id, message_id, client_id, principal, details
FROM log
WHERE bucket = $bucket AND client_id = $client_id AND mailing_id = 0 AND client_id > 0 AND event <> 'client.read'
ORDER BY no DESC
LIMIT $most;

-- name: list_titles
SELECT id, title, state, endpoint FROM mailings WHERE id = ANY ($ids::bigint[]);

-- name: list_attempts_of_client
-- One look-up by the key per mailing: attempts have no index by client.
SELECT a.*
FROM unnest($ids::bigint[]) AS g (id)
CROSS JOIN LATERAL (
  SELECT * FROM attempts WHERE bucket = $bucket AND mailing_id = g.id AND client_id = $client_id OFFSET 0
) a
ORDER BY a.mailing_id, a.number;
